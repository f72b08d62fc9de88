"""A plugin of coverage.py for ``make coverage``: every process writes down what it ran each second.

Processes are killed on purpose here, engines whenever their pool stops; what coverage.py keeps for their end is lost.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any

from coverage import Coverage

INTERVAL_S = 1.0


def coverage_init(_registry: Any, _options: dict[str, str]) -> None:
    """Called by coverage.py in each process that it measures."""
    _begin()
    os.register_at_fork(after_in_child=_begin)


def _begin() -> None:
    threading.Thread(target=_save_now_and_then, name="coverage", daemon=True).start()


def _save_now_and_then() -> None:
    while True:
        time.sleep(INTERVAL_S)
        measuring = Coverage.current()
        if measuring is not None:
            with contextlib.suppress(Exception):  # what cannot be written now is written a second later
                measuring.save()
