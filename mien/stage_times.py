"""Where a job's time goes: seconds per stage, worked and waited.

*Worked* is processor time (or, on a GPU, the device's time) spent on the stage; *waited* is the rest of the time that
passed in it: for a disk or a share, for a processor core that others held, for the database. Both are summed over
images, so that two engines side by side spend two seconds in one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

STAGES = ("read", "decode", "detect", "classify", "write")
"""``write`` is the ledger's: taking a chunk and writing its results. The others are the engines'."""
ENGINE_STAGES = STAGES[:-1]
TIME_FIELDS = tuple(f"{stage}{kind}" for stage in STAGES for kind in ("_s", "_wait_s"))
"""Names of the columns in the ledger."""
ENGINE_TIME_FIELDS = TIME_FIELDS[: 2 * len(ENGINE_STAGES)]
"""Names of the fields of an image's result."""


class Clock:
    """What this thread worked and waited, lap by lap."""

    def __init__(self) -> None:
        self._wall, self._worked = time.perf_counter(), time.thread_time()

    def lap(self) -> tuple[float, float]:
        """Seconds (worked, waited) since the clock was made or last asked."""
        wall, worked = time.perf_counter(), time.thread_time()
        passed, spent = wall - self._wall, worked - self._worked
        self._wall, self._worked = wall, worked
        return spent, max(passed - spent, 0.0)


def add_lap(times: dict[str, float], stage: str, lap: tuple[float, float]) -> None:
    """Add a lap to a stage of ``times`` (by :data:`TIME_FIELDS`)."""
    for name, seconds in zip((f"{stage}_s", f"{stage}_wait_s"), lap, strict=True):
        times[name] = times.get(name, 0.0) + seconds


def sum_times(items: Iterable[Any]) -> dict[str, float]:
    """The sums of the time fields that the items have."""
    sums = dict.fromkeys(TIME_FIELDS, 0.0)
    for item in items:
        for name in ENGINE_TIME_FIELDS:
            sums[name] += getattr(item, name)
    return sums
