"""Long polls: wait for a job to change, without ever taking more than half the server's threads."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import request

from mien.jobs import Job
from web.services import services

SHORTEST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
LATE_BY = 0.05
"""News is told late by at most this share of the time that was waited for it: a job of seconds is not a second longer
for whoever waits, and one of hours is not looked at ten times a second. A look takes a millisecond."""


def etag_of(job: Job) -> str:
    """The tag of this state of the job (without quotes; sent as a weak one)."""
    return f"{job.public_id}.{job.version}"


def wait_for_news(read: Callable[[], Job], wait_s: float) -> Job:
    """The job as ``read`` gives it, at the latest after ``wait_s`` seconds.

    With If-None-Match it comes as soon as the job has changed from that; without, as soon as the job has ended. At
    once where no place is free or the server is stopping. No database session is held while waiting.
    """
    job = read()
    if wait_s <= 0 or _is_news(job):
        return job
    parts = services()
    with parts.waiting.place() as got:
        if not got:
            return job
        begun = time.monotonic()
        while not _is_news(job) and not parts.is_stopping():
            waited = time.monotonic() - begun
            if waited >= wait_s:
                break
            pause = min(max(LATE_BY * waited, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
            time.sleep(min(pause, wait_s - waited))
            job = read()
    return job


def _is_news(job: Job) -> bool:
    if request.if_none_match:
        return not request.if_none_match.contains_weak(etag_of(job))
    return job.is_final
