"""Retention: two clocks per job, both from its end; one for its uploads, one for the job itself."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

from mien.audit import Act, add_audit
from mien.database import Database
from mien.ledger.receipts import job_receipt
from mien.schema import jobs
from mien.states import FINAL_STATUSES

PER_SWEEP = 200
_JULIAN_DAY_OF_THE_EPOCH = 2_440_587.5
_SECONDS_PER_DAY = 86_400


def expire_results(db: Database) -> int:
    """Ask for the deletion of jobs whose ``keep_results`` has passed, each with a receipt; gives how many."""
    with db.write() as connection:
        now = db.now(connection)
        rows = connection.execute(
            sa.select(jobs.c.id, jobs.c.owner, jobs.c.public_id)
            .where(jobs.c.status.in_(FINAL_STATUSES), _has_passed(db, jobs.c.keep_results_s, now))
            .order_by(jobs.c.id)
            .limit(PER_SWEEP)
            .with_for_update(skip_locked=True, key_share=True)
        ).all()
        for row in rows:
            connection.execute(
                jobs.update()
                .where(jobs.c.id == row.id)
                .values(status="deleting", deleting_at=now, request=None, version=jobs.c.version + 1)
            )
            receipt = job_receipt(connection, row.owner, row.public_id, now, reason="retention")
            act = Act(row.owner, "deleted", job=row.public_id, detail="retention", receipt=receipt)
            add_audit(connection, [act], now)
    return len(rows)


def expired_uploads(db: Database) -> list[tuple[int, str]]:
    """Jobs, (id, public id), whose ``keep_images`` has passed and whose uploads are still kept."""
    with db.read() as connection:
        now = db.now(connection)
        rows = connection.execute(
            sa.select(jobs.c.id, jobs.c.public_id)
            .where(
                jobs.c.status.in_(FINAL_STATUSES),
                jobs.c.upload_files > 0,
                jobs.c.pending == 0,
                _has_passed(db, jobs.c.keep_images_s, now),
            )
            .order_by(jobs.c.id)
            .limit(PER_SWEEP)
        )
        return [(row.id, row.public_id) for row in rows]


def _has_passed(db: Database, keep_s: sa.ColumnElement[Any], now: dt.datetime) -> sa.ColumnElement[bool]:
    ended = sa.func.coalesce(jobs.c.completed_at, jobs.c.cancelled_at, jobs.c.failed_at)
    if db.is_sqlite:
        seconds = (sa.func.julianday(ended) - _JULIAN_DAY_OF_THE_EPOCH) * _SECONDS_PER_DAY
    else:
        seconds = sa.cast(sa.extract("epoch", ended), sa.Float)
    return sa.and_(keep_s.is_not(None), seconds + keep_s <= now.timestamp())
