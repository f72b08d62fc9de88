"""Fault points do nothing unless a test asks, and then exactly one process does it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from mien.faults import POINTS, VARIABLE
from tests.support.machine import ROOT

PASS_THROUGH = "from mien.faults import fault_point; fault_point('after_lease'); print('through')"


def _pass(folder: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if folder is not None:
        environment[VARIABLE] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", PASS_THROUGH], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_point_is_inert_without_an_order(tmp_path: Path) -> None:
    (tmp_path / "after_commit").write_text("crash")
    assert _pass(None).stdout == _pass(tmp_path).stdout == "through\n"


def test_an_order_is_carried_out_once(tmp_path: Path) -> None:
    (tmp_path / "after_lease").write_text("crash")
    assert _pass(tmp_path).returncode == -signal.SIGKILL
    assert _pass(tmp_path).stdout == "through\n"


def test_every_point_is_passed_somewhere_and_no_other() -> None:
    passed = set()
    for package in ("mien", "web", "worker"):
        for file in (ROOT / package).rglob("*.py"):
            for call in re.findall(r"fault_point\((.*)\)", file.read_text()):
                passed |= set(re.findall(r'"(\w+)"', call.replace('== "deleting"', "")))
    assert passed == set(POINTS)
