"""The watchdog of a supervisor: ends the parts, in order, when the supervisor is gone without having done it.

``python -m cli.embedded.watchdog DATA_DIR GRACE_S``, with a pipe from the supervisor as standard input. The pipe's end
without a farewell means that the supervisor was killed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cli.embedded import leftovers
from cli.embedded.broker import clear_away
from cli.embedded.state import RunFiles, take_lock

FAREWELL = b"."


def main() -> None:
    """Wait for the supervisor's end; then do what it left undone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    files, grace_s = RunFiles(Path(sys.argv[1])), float(sys.argv[2])
    lock = take_lock(files.watchdog_lock, timeout_s=5)
    if lock is None:
        sys.exit("another watchdog watches this data folder")
    if FAREWELL in _read_all(sys.stdin.fileno()):
        return
    leftovers.end(leftovers.find(files.identity), grace_s=grace_s, identity=files.identity)
    clear_away(files)
    files.forget_running()


def _read_all(descriptor: int) -> bytes:
    said = b""
    while block := os.read(descriptor, 64):
        said += block
    return said


if __name__ == "__main__":
    main()
