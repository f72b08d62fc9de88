"""Decoding of hostile files in a process of its own, under a limit of memory and of time for each; measured.

Run as a program it reads a pickle of ``{name: bytes}`` (our own) and writes JSON lines: a file that takes the process
with it is the last one begun.
"""

from __future__ import annotations

import json
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MAX_PIXELS = 4_000_000
MEMORY = 600 << 20
"""Bytes of address space above what the process needs to begin: four megapixels in any mode need a tenth of it."""
SECONDS = 10
"""Far above what any needs, and on a busy machine still enough."""


@dataclass(frozen=True)
class Report:
    """What became of a file: ``code`` of its error, or its size as an array."""

    code: str | None
    detail: str
    shape: tuple[int, ...] | None
    seconds: float


def decode_all(files: dict[str, bytes]) -> dict[str, Report]:
    """Decode each; a file that is not in the answer ended the process, or was not reached after one that did."""
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        pickle.dump(files, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.bounded_decoding", file.name],
            capture_output=True, text=True, check=False, timeout=300, cwd=Path(__file__).parents[2],
        )  # fmt: skip
    reports: dict[str, Report] = {}
    for line in done.stdout.splitlines():
        facts = json.loads(line)
        name = facts.pop("name")
        if "begun" in facts:
            last = name
            continue
        reports[name] = Report(
            facts["code"], facts["detail"], facts["shape"] and tuple(facts["shape"]), facts["seconds"]
        )
    assert done.returncode == 0, f"{last} ended the process with code {done.returncode}: {done.stderr[-2000:]}"
    return reports


def _main(path: str) -> None:
    from mien.errors import ImageError
    from mien.images import decode

    files: dict[str, bytes] = pickle.loads(Path(path).read_bytes())  # noqa: S301 - written by the lines above
    used = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for name, data in files.items():
        _say(name=name, begun=True)
        signal.alarm(SECONDS)
        began = time.perf_counter()
        code, detail, shape = None, "", None
        try:
            shape = decode(data, min_side=64, max_pixels=MAX_PIXELS).pixels.shape
            shape = decode(data, max_pixels=MAX_PIXELS).pixels.shape
        except ImageError as error:
            code, detail = error.code, error.detail
        took = time.perf_counter() - began
        signal.alarm(0)
        _say(name=name, code=code, detail=detail, shape=shape, seconds=took)


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    _main(sys.argv[1])
