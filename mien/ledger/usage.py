"""What an owner used up today (UTC): images that were found, bytes that were uploaded. Deleting gives none back."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from mien.database import Database
from mien.schema import jobs, usage
from mien.states import FINAL_STATUSES


@dataclass(frozen=True)
class Used:
    """Of one owner: today's images and bytes, the jobs that have not ended, and when the day does."""

    images: int
    bytes: int
    open_jobs: int
    day_ends_in_s: int


def add_usage(connection: sa.Connection, owner: str, now: dt.datetime, *, images: int = 0, size: int = 0) -> None:
    """Add to today's use, after the job's row: the last in the lock order."""
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert
    statement = insert(usage).values(owner=owner, day=now.date(), images=images, bytes=size)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[usage.c.owner, usage.c.day],
            set_={"images": usage.c.images + images, "bytes": usage.c.bytes + size},
        )
    )


def used_today(db: Database, owner: str) -> Used:
    """What the owner has used up."""
    with db.read() as connection:
        now = db.now(connection)
        row = connection.execute(
            sa.select(usage).where(usage.c.owner == owner, usage.c.day == now.date())
        ).one_or_none()  # fmt: skip
        open_jobs = connection.execute(
            sa.select(sa.func.count())
            .select_from(jobs)
            .where(jobs.c.owner == owner, jobs.c.status.not_in((*FINAL_STATUSES, "deleting")))
        ).scalar_one()
    midnight = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    return Used(
        images=row.images if row else 0,
        bytes=row.bytes if row else 0,
        open_jobs=open_jobs,
        day_ends_in_s=int((midnight - now).total_seconds()) + 1,
    )
