"""``mien doctor`` where every process is started by hand: which of them is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.embedded import commands
from cli.ledger import prepare_ledger
from mien.settings import load_settings
from tests.support.machine import ROOT

pytestmark = [pytest.mark.end_to_end, pytest.mark.redis, pytest.mark.long]
APPEAR_S = 60.0

EXAMINE = """
import json
from cli.doctor import services
from mien.settings import load_settings
print(json.dumps({finding.name: [finding.state, finding.mend] for finding in services.workers(load_settings())}))
"""


def findings() -> dict[str, list[str]]:
    """What the command finds of workers and control, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", EXAMINE], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[None]:
    """One process of Mien for the length of the block."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(commands.in_this_python(command), cwd=ROOT, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def until(name: str, state: str) -> dict[str, list[str]]:
    """Look until a finding of that name has that state; gives all."""
    deadline = time.monotonic() + APPEAR_S
    while (found := findings()).get(name, [""])[0] != state:
        assert time.monotonic() < deadline, found
    return found


def test_the_process_that_is_missing_is_named(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MIEN_BROKER_URL", redis_url)
    prepare_ledger(load_settings())
    assert findings()["workers"][0] == "bad"
    with started(commands.worker("cpu", 2), tmp_path):
        assert "-Q control" in until("workers", "ok")["control"][1]
        with started(commands.control(), tmp_path):
            deadline = time.monotonic() + APPEAR_S
            while "control" in findings():
                assert time.monotonic() < deadline
