"""A plugin of coverage.py for ``make coverage``: every process writes down what it ran each second.

Processes are killed on purpose here, engines whenever their pool stops; what coverage.py keeps for their end is lost.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from typing import Any

from coverage import Coverage

INTERVAL_S = 1.0

_saving = threading.Lock()
"""Nobody forks in the midst of writing: the child would inherit SQLite's locks, held by a thread that it has not."""
_begun: set[int] = set()
"""The processes that write: coverage.py begins anew, and calls its plugins again, in each child."""


def coverage_init(_registry: Any, _options: dict[str, str]) -> None:
    """Called by coverage.py in each process that it measures."""
    if not _begun:
        os.register_at_fork(before=_saving.acquire, after_in_parent=_saving.release, after_in_child=_begin_in_child)
    _begin()


def _begin_in_child() -> None:
    _saving.release()
    _begin()


def _begin() -> None:
    if os.getpid() not in _begun:
        _begun.add(os.getpid())
        threading.Thread(target=_save_now_and_then, name="coverage", daemon=True).start()


def _save_now_and_then() -> None:
    time.sleep(INTERVAL_S)
    atexit.unregister(_saving.acquire)  # a parent's
    atexit.register(_saving.acquire)  # registered last, called first: coverage.py then saves alone
    while True:
        with _saving, contextlib.suppress(Exception):  # what cannot be written now is written a second later
            if measuring := Coverage.current():
                measuring.save()
        time.sleep(INTERVAL_S)
