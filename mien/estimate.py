"""How long a job would take here, from what was measured: the jobs that ended last with the same model."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import sqlalchemy as sa

from mien.database import Database
from mien.schema import jobs

LATEST = 5
ENOUGH_IMAGES = 20
"""Smaller jobs say more about starting than about speed."""
UNFINISHED = ("queued", "expanding", "running")


@dataclass(frozen=True)
class Estimate:
    """``seconds`` for the images alone; None where nothing was measured yet. ``waiting``: images of unfinished jobs."""

    seconds: float | None
    images_per_s: float | None
    measured_on: int
    waiting: int


def estimate(db: Database, images: int, *, model_revision: str, faces_mode: str) -> Estimate:
    """How long ``images`` would take: at the median speed of the latest jobs like it."""
    columns = (jobs.c.total, jobs.c.cached, jobs.c.running_at, jobs.c.completed_at)
    measured = (
        sa.select(*columns)
        .where(
            jobs.c.status == "completed",
            jobs.c.model_revision == model_revision,
            jobs.c.faces_mode == faces_mode,
            jobs.c.running_at.is_not(None),
            jobs.c.total - jobs.c.cached >= ENOUGH_IMAGES,
        )
        .order_by(jobs.c.id.desc())
        .limit(LATEST)
    )
    with db.read() as connection:
        rows = connection.execute(measured).all()
        waiting = connection.execute(
            sa.select(sa.func.coalesce(sa.func.sum(jobs.c.pending), 0)).where(jobs.c.status.in_(UNFINISHED))
        ).scalar_one()
    rates = [
        (row.total - row.cached) / seconds
        for row in rows
        if (seconds := (row.completed_at - row.running_at).total_seconds()) > 0
    ]
    rate = statistics.median(rates) if rates else None
    return Estimate(images / rate if rate else None, rate, len(rates), int(waiting))
