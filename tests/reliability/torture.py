"""``make torture``: every promise in full size on both ways to run Mien, with a table of figures at the end.

``python -m tests.reliability.torture [--only 1,4] [--way embedded] [--short] [--write docs/promises.md]``
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.reliability import trials_crashing, trials_killing, trials_many, trials_moving, trials_outages
from tests.reliability.promises import PROMISES, Trial
from tests.reliability.systems import NAMES, WAYS, running
from tests.support.machine import ROOT

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
TRIALS = (trials_crashing, trials_killing, trials_many, trials_moving, trials_outages)
"""Importing them registers the promises."""


def main() -> int:
    """Run what is asked for; 1 if a promise was broken."""
    asked = _arguments()
    if asked.child:
        return _run_one_way(asked)
    with tempfile.TemporaryDirectory(prefix="mien-torture-") as folder:
        started = time.monotonic()
        children = {way: _start(way, Path(folder), asked) for way in asked.way}
        found = {way: _results(child) for way, child in children.items()}
        table = _table(found, time.monotonic() - started, asked)
    sys.stdout.write(f"{table}\n")
    if asked.write:
        _write(asked.write, table)
    return 0 if all(result["kept"] for results in found.values() for result in results.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default="", help="numbers of promises, separated by commas; all by default")
    parser.add_argument(
        "--way", action="append", choices=WAYS, help="one way to run Mien; both, side by side, by default"
    )
    parser.add_argument("--short", action="store_true", help="the numbers of `make test`")
    parser.add_argument("--seed", type=int, default=7, help="where and when things are broken")
    parser.add_argument("--write", type=Path, help="put the table between the marks of this page")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.way = asked.way or list(WAYS)
    asked.numbers = [int(number) for number in asked.only.split(",") if number] or sorted(PROMISES)
    return asked


def _start(way: str, folder: Path, asked: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.reliability.torture", "--way", way, "--child", str(folder / way)]
    command += ["--only", ",".join(map(str, asked.numbers)), "--seed", str(asked.seed)]
    return subprocess.Popen(
        [*command, *(["--short"] if asked.short else [])], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def _results(child: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = child.communicate()
    return dict(json.loads(said.splitlines()[-1])) if said.strip() else {}


def _run_one_way(asked: argparse.Namespace) -> int:
    (way,) = asked.way
    wanted = [PROMISES[number] for number in asked.numbers if way in PROMISES[number].ways]
    results: dict[int, dict[str, Any]] = {}
    asked.child.mkdir(parents=True)
    # eight engines at once in full size: an image that fills the memory gets the time to
    settings = {} if asked.short else {"MIEN_ENGINES": "4", "MIEN_IMAGE_TIMEOUT_S": "10"}
    with running(way, asked.child / "system", **settings) as system:
        for promise in wanted:
            place = asked.child / str(promise.number)
            place.mkdir()
            started = time.monotonic()
            trial = Trial(system, not asked.short, place, random.Random(asked.seed))
            try:
                figures, kept = promise.keep(trial), True
            except Exception as error:
                traceback.print_exc()
                first = (str(error) or type(error).__name__).splitlines()[0]
                figures, kept = f"BROKEN: {first[:200]}", False
                system.recover()
            seconds = time.monotonic() - started
            results[promise.number] = {"kept": kept, "figures": figures, "seconds": seconds}
            sys.stderr.write(f"{NAMES[way]}: {promise.number}. {promise.name}: {figures} ({seconds:.0f} s)\n")
            sys.stderr.flush()
    sys.stdout.write(json.dumps(results) + "\n")
    return 0


def _table(found: dict[str, dict[str, Any]], seconds: float, asked: argparse.Namespace) -> str:
    lines = ["| promise | way | figures | seconds |", "| --- | --- | --- | --- |"]
    for number in asked.numbers:
        for way, results in found.items():
            result = results.get(str(number))
            if result is None and way in PROMISES[number].ways:
                result = results[str(number)] = {"kept": False, "figures": "BROKEN: no result", "seconds": 0.0}
            if result is not None:
                name = f"{number}. {PROMISES[number].name}"
                lines.append(f"| {name} | {NAMES[way]} | {result['figures']} | {result['seconds']:.0f} |")
    form = "Short form" if asked.short else "Full size"
    lines.append(f"\n{form}, seed {asked.seed}, {seconds:.0f} s for both ways side by side.")
    return "\n".join(lines)


def _write(page: Path, table: str) -> None:
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
