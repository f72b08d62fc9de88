"""The job's counters move with its images' outcomes: one statement, last in the transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from mien.ledger.events import note_end
from mien.schema import jobs

ENDS = ("completed", "cancelled")


def move_counters(
    connection: sa.Connection, job_id: int, now: dt.datetime, moved: Mapping[str, float], **also: Any
) -> sa.Row[Any]:
    """Add ``moved`` to the job's counters and give the new row (id, status, commits, pending, version).

    This is where a job ends: when nothing is pending any more, ``running`` becomes ``completed`` and ``cancelling``
    becomes ``cancelled``. An ``expanding`` job ends when its expansion does. Whoever is to be told of the end is told
    by a delivery of this transaction.
    """
    left = jobs.c.pending + moved.get("pending", 0)
    ends = sa.and_(left == 0, jobs.c.request.is_(None), jobs.c.expanded_at.is_not(None))
    status = sa.case(
        (sa.and_(ends, jobs.c.status == "running"), "completed"),
        (sa.and_(left == 0, jobs.c.status == "cancelling"), "cancelled"),
        else_=jobs.c.status,
    )
    values: dict[str, Any] = {name: jobs.c[name] + amount for name, amount in moved.items() if amount}
    values |= {
        "status": status,
        "version": jobs.c.version + 1,
        "completed_at": sa.case(
            (sa.and_(ends, jobs.c.status == "running"), sa.bindparam("ended", now, jobs.c.completed_at.type)),
            else_=jobs.c.completed_at,
        ),
        "cancelled_at": sa.case(
            (
                sa.and_(left == 0, jobs.c.status == "cancelling"),
                sa.bindparam("ended", now, jobs.c.cancelled_at.type),
            ),
            else_=jobs.c.cancelled_at,
        ),
    }
    statement = (
        jobs.update()
        .where(jobs.c.id == job_id)
        .values(values | also)
        .returning(
            jobs.c.id, jobs.c.status, jobs.c.commits, jobs.c.pending, jobs.c.version, jobs.c.owner, jobs.c.completed_at,
            jobs.c.cancelled_at,
        )
    )  # fmt: skip
    row = connection.execute(statement).one()
    # the time of the end is this transaction's own: then it was this statement that ended the job
    if row.status in ENDS and row._mapping[f"{row.status}_at"] == now:
        note_end(connection, row.id, row.owner, row.status, now)
    return row
