"""A system started for the length of a command: ``python -m cli.embedded.host DESCRIPTOR``, a process of its own.

It says through the descriptor that it is ready, or why it is not, and leaves when nobody uses it any more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from types import FrameType

from cli.embedded.state import RunFiles, take_lock
from cli.embedded.supervisor import Supervisor
from mien.errors import MienError
from mien.settings import load_settings

LOOK_EVERY_S = 2.0
LOOKS_ALONE = 3
"""So many looks in a row without a user, and the system stops: its last user was killed and could not do it."""


def main() -> int:
    """Start, say so, watch, drain."""
    words = int(sys.argv[1])
    told = threading.Event()

    def tell(_signal: int, _frame: FrameType | None) -> None:
        told.set()

    signal.signal(signal.SIGTERM, tell)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        settings = load_settings()
        supervisor = Supervisor(settings, report=_log)
        supervisor.start("session", told.is_set, any_port=True)
    except KeyboardInterrupt:
        return 0
    except MienError as error:
        _speak(words, {"error": error.detail, "code": error.code})
        return 1
    _speak(words, {"url": supervisor.url})
    try:
        supervisor.watch(_Alone(RunFiles(settings.data_dir), told).is_over)
    finally:
        supervisor.drain()
    return 0


class _Alone:
    """Whether the system should end: told to, or without users for some time."""

    def __init__(self, files: RunFiles, told: threading.Event) -> None:
        self._files, self._told = files, told
        self._looked_at, self._looks = time.monotonic(), 0

    def is_over(self) -> bool:
        """Asked a few times a second."""
        if self._told.is_set():
            return True
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return False
        self._looked_at = time.monotonic()
        lock = take_lock(self._files.users_lock)
        if lock is None:
            self._looks = 0
            return False
        self._looks += 1
        if self._looks < LOOKS_ALONE:
            lock.release()
            return False
        self._last_lock = lock  # held to the end of the process: who comes now waits, then starts a new system
        _log("no command uses this system any more")
        return True


def _speak(descriptor: int, word: dict[str, str]) -> None:
    try:
        with os.fdopen(descriptor, "w") as words:
            json.dump(word, words)
    except OSError as error:
        _log(f"the command that started this system is gone ({error})")


def _log(sentence: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
