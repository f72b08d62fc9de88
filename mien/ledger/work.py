"""Job-level work (expand, retry, purge): one process at a time holds a job's lease, with a fencing token."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.errors import LeaseLostError
from mien.ledger.events import note_end
from mien.schema import images, jobs

TAKES_WORK = ("queued", "expanding", "running")
BEGINNING_LOCK = 0x4D49454F
"""PostgreSQL's advisory lock of those who count the jobs of an owner."""
RUNNING_LIMIT = "running_limit"
"""The notice of a job that waits until another one of its owner has ended."""


@dataclass(frozen=True)
class JobLease:
    """The right to expand, retry or purge one job, until ``lease_s`` after the last renewal."""

    job_id: int
    public_id: str
    token: str
    lease_s: float
    status: str
    request: str | None


def _wants_expansion() -> sa.ColumnElement[bool]:
    return sa.and_(jobs.c.request.is_not(None), jobs.c.status.in_(TAKES_WORK))


def _wants_purge() -> sa.ColumnElement[bool]:
    # a job that failed while images were pending has to give each of them an outcome
    return sa.or_(jobs.c.status.in_(("cancelling", "deleting")), sa.and_(jobs.c.status == "failed", jobs.c.pending > 0))


def _may_begin(now: dt.datetime, most: int) -> sa.ColumnElement[bool]:
    """Whether fewer than ``most`` jobs of a queued job's owner run, those that are just being begun included."""
    if not most:
        return sa.true()
    others = jobs.alias("others")
    begun = sa.and_(others.c.status == "queued", others.c.lease_token.is_not(None), others.c.lease_expires_at >= now)
    running = (
        sa.select(sa.func.count())
        .where(others.c.owner == jobs.c.owner, sa.or_(others.c.status.in_(("expanding", "running")), begun))
        .scalar_subquery()
    )
    return sa.or_(jobs.c.status != "queued", running < most)


def take_job(
    db: Database, owner: str, lease_s: float, *, purge: bool, skip: Collection[int] = (), most: int = 0
) -> JobLease | None:
    """Lease the oldest job that waits for expansion or retry (``purge=False``), or for cancelling or deletion.

    Jobs in ``skip`` (by id) are passed over: the caller has found that they cannot go on just now. So are those whose
    owner has ``most`` jobs running already (0: no limit).
    """
    wanted = _wants_purge() if purge else _wants_expansion()
    with db.write() as connection:
        if most and not purge and not db.is_sqlite:
            # two that count at the same moment would both find room for one more
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(BEGINNING_LOCK)))
        now = db.now(connection)
        if not purge:
            wanted = sa.and_(wanted, _may_begin(now, most))
        free = sa.or_(jobs.c.lease_token.is_(None), jobs.c.lease_expires_at < now)
        row = connection.execute(
            sa.select(jobs.c.id, jobs.c.public_id, jobs.c.status, jobs.c.request)
            .where(wanted, free, jobs.c.id.not_in(list(skip)))
            .order_by(jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True, key_share=True)
        ).one_or_none()
        if row is None:
            return None
        token = secrets.token_hex(16)
        connection.execute(
            jobs.update()
            .where(jobs.c.id == row.id)
            .values(
                lease_token=token,
                lease_owner=owner,
                lease_expires_at=now + dt.timedelta(seconds=lease_s),
                version=jobs.c.version + 1,
            )
        )
    return JobLease(row.id, row.public_id, token, lease_s, row.status, row.request)


def check_job(connection: sa.Connection, lease: JobLease, now: dt.datetime, **also: Any) -> sa.Row[Any]:
    """Renew the lease inside the caller's transaction and give (status, request).

    Raises:
        LeaseLostError: another process holds the job now, or it is gone; the transaction must not be committed.
    """
    row = connection.execute(
        jobs.update()
        .where(jobs.c.id == lease.job_id, jobs.c.lease_token == lease.token)
        .values(lease_expires_at=now + dt.timedelta(seconds=lease.lease_s), **also)
        .returning(jobs.c.status, jobs.c.request)
    ).one_or_none()
    if row is None:
        raise LeaseLostError(f"The lease on job {lease.public_id} was taken over.")
    return row


class JobEndedError(Exception):
    """The job was cancelled, deleted or failed meanwhile: what this transaction adds to it must not be committed."""


def check_still_wanted(connection: sa.Connection, lease: JobLease, now: dt.datetime, **also: Any) -> None:
    """As :func:`check_job`, for work that adds images or makes them pending again.

    Raises:
        JobEndedError: the job takes no more work.
        LeaseLostError: another process holds the job now.
    """
    if check_job(connection, lease, now, **also).status not in TAKES_WORK:
        raise JobEndedError(lease.public_id)


def release_job(db: Database, lease: JobLease) -> None:
    """Give the job's lease back, if it is still ours."""
    with db.write() as connection:
        connection.execute(
            jobs.update()
            .where(jobs.c.id == lease.job_id, jobs.c.lease_token == lease.token)
            .values(lease_token=None, lease_owner=None, lease_expires_at=None, version=jobs.c.version + 1)
        )


def fail_job(db: Database, job_id: int, code: str, error: str) -> None:
    """End a job as ``failed``: its expansion or its model cannot be had. Purge gives pending images their outcome."""
    with db.write() as connection:
        now = db.now(connection)
        ended = connection.execute(
            jobs.update()
            .where(jobs.c.id == job_id, jobs.c.status.in_(TAKES_WORK))
            .values(
                status="failed",
                failed_at=now,
                request=None,
                error_code=code,
                error=error,
                notice_code=None,
                notice=None,
                version=jobs.c.version + 1,
            )
            .returning(jobs.c.owner)
        ).one_or_none()
        if ended is not None:
            note_end(connection, job_id, ended.owner, "failed", now)


def set_notice(db: Database, job_id: int, code: str | None, notice: str | None) -> None:
    """Say on the job what holds it back now (None clears it)."""
    with db.write() as connection:
        connection.execute(
            jobs.update()
            .where(jobs.c.id == job_id, jobs.c.notice.is_distinct_from(notice))
            .values(notice_code=code, notice=notice, version=jobs.c.version + 1)
        )


def has_images(connection: sa.Connection, job_id: int) -> bool:
    """Whether any image of the job was written."""
    return connection.execute(sa.select(images.c.id).where(images.c.job_id == job_id).limit(1)).first() is not None


def waits_for_control(db: Database, most: int = 0) -> tuple[bool, bool]:
    """Whether a free job waits for expansion or retry and may begin, and whether one waits for cancelling or deletion.

    ``most``: how many jobs of an owner may run at once (0: no limit).
    """
    with db.read() as connection:
        now = db.now(connection)
        free = sa.or_(jobs.c.lease_token.is_(None), jobs.c.lease_expires_at < now)
        expand, purge = (
            connection.execute(sa.select(jobs.c.id).where(wanted, free).limit(1)).first() is not None
            for wanted in (sa.and_(_wants_expansion(), _may_begin(now, most)), _wants_purge())
        )
    return expand, purge


def held_by_limit(db: Database, most: int) -> list[int]:
    """The jobs (ids) that stay queued because ``most`` jobs of their owner run, and do not say so yet."""
    if not most:
        return []
    with db.read() as connection:
        now = db.now(connection)
        return list(
            connection.execute(
                sa.select(jobs.c.id).where(
                    jobs.c.status == "queued",
                    jobs.c.request.is_not(None),
                    jobs.c.lease_token.is_(None),
                    jobs.c.notice_code.is_distinct_from(RUNNING_LIMIT),
                    sa.not_(_may_begin(now, most)),
                )
            ).scalars()
        )


def clear_limit_notice() -> dict[str, sa.ColumnElement[str | None]]:
    """Values of an update that begins a job: it does not wait for another one any more."""
    waits = jobs.c.notice_code.is_not_distinct_from(RUNNING_LIMIT)
    return {
        "notice_code": sa.case((waits, None), else_=jobs.c.notice_code),
        "notice": sa.case((waits, None), else_=jobs.c.notice),
    }


def renew_job(db: Database, lease: JobLease) -> int | None:
    """Keep the lease of a job whose walk waits; gives its pending images, or None when it takes no more work.

    Raises:
        LeaseLostError: another process holds the job now.
    """
    with db.write() as connection:
        if check_job(connection, lease, db.now(connection)).status not in TAKES_WORK:
            return None
        return int(connection.execute(sa.select(jobs.c.pending).where(jobs.c.id == lease.job_id)).scalar_one())
