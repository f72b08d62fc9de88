"""Summaries for the pages, kept for a moment: nobody needs a million faces counted at each poll of a page."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

from mien.aggregates import summary
from mien.database import Database
from mien.jobs import Job

KEPT = 256
REST = 20
"""A running job's summary stays this many times as long as it took to make: a twentieth of the time at most."""

_lock = threading.Lock()
_kept: OrderedDict[tuple[str, str], tuple[int, float, dict[str, Any]]] = OrderedDict()


def recent_summary(db: Database, job: Job) -> dict[str, Any]:
    """:func:`mien.aggregates.summary`, up to ``REST`` times its own cost old while the job runs."""
    key = (str(db.url), job.public_id)
    with _lock:
        found = _kept.get(key)
    if found is not None and (found[0] == job.version or (not job.is_final and time.monotonic() < found[1])):
        return found[2]
    began = time.monotonic()
    made = summary(db, job)
    now = time.monotonic()
    with _lock:
        _kept[key] = (job.version, now + REST * (now - began), made)
        _kept.move_to_end(key)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return made
