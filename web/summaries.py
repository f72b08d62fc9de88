"""Sums for the pages, kept for a moment: nobody needs a million faces counted at each poll of a page."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mien.aggregates import folders, summary
from mien.database import Database
from mien.jobs import Job

REST = 20
"""A running job's sums stay this many times as long as they took to make: a twentieth of the time at most."""
MOST_FOLDERS = 12

Made = TypeVar("Made")


class Recent(Generic[Made]):
    """What ``make`` makes of a job, up to ``REST`` times its own cost old while the job runs; of ``most`` jobs."""

    def __init__(self, make: Callable[[Database, Job], Made], most: int) -> None:
        self._make = make
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[int, float, Made]] = OrderedDict()

    def __call__(self, db: Database, job: Job) -> Made:
        """As it was made lately, or made now."""
        key = (str(db.url), job.public_id)
        with self._lock:
            found = self._kept.get(key)
        if found is not None and (found[0] == job.version or (not job.is_final and time.monotonic() < found[1])):
            return found[2]
        began = time.monotonic()
        made = self._make(db, job)
        now = time.monotonic()
        with self._lock:
            self._kept[key] = (job.version, now + REST * (now - began), made)
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made


def _first_folders(db: Database, job: Job) -> tuple[list[dict[str, Any]], bool]:
    return folders(db, job, limit=MOST_FOLDERS)


recent_summary = Recent(summary, 256)
"""Of :func:`mien.aggregates.summary`."""
recent_folders = Recent(_first_folders, 64)
"""The first sub-folders, and whether there are more."""
