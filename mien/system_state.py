"""How Mien is, in numbers: work that waits, throughput over time, disk, and what went wrong lately."""

from __future__ import annotations

import datetime as dt
import shutil
from typing import Any

import sqlalchemy as sa
from celery import Celery

from mien.database import Database
from mien.queue import CLASSIFY_QUEUES, CONTROL_QUEUE, PREDICT_QUEUES, waiting
from mien.schema import chunks, images, jobs
from mien.settings import Settings

MINUTES = 60
RECENT_JOBS = 50
RECENT_FAILURES = 10


def throughput(db: Database, minutes: int = MINUTES) -> list[dict[str, Any]]:
    """Images that were written in each of the last minutes, of all owners: a list of ``minute`` and ``images``.

    From the commits of chunks; what was deleted since is not counted.
    """
    with db.read() as connection:
        now = db.now(connection)
        this = int(now.timestamp()) // 60
        first = dt.datetime.fromtimestamp(60 * (this - minutes + 1), dt.UTC)
        second = sa.extract("epoch", chunks.c.committed_at)
        minute = sa.cast(sa.func.floor(second / 60) if not db.is_sqlite else second / 60, sa.BigInteger)
        counted = {
            int(row.minute): int(row.images)
            for row in connection.execute(
                sa.select(minute.label("minute"), sa.func.sum(chunks.c.images).label("images"))
                .where(chunks.c.committed_at >= first)
                .group_by(minute)
            )
        }
    return [
        {"minute": dt.datetime.fromtimestamp(60 * place, dt.UTC), "images": counted.get(place, 0)}
        for place in range(this - minutes + 1, this + 1)
    ]


def work_waiting(db: Database) -> dict[str, Any]:
    """Of all owners: images and chunks that wait or are in work, and jobs by state."""
    with db.read() as connection:
        pieces = {
            row.state: (row.chunks, int(row.images or 0))
            for row in connection.execute(
                sa.select(chunks.c.state, sa.func.count().label("chunks"), sa.func.sum(chunks.c.images).label("images"))
                .where(chunks.c.state.in_(("due", "leased")))
                .group_by(chunks.c.state)
            )
        }
        by_status = {
            row.status: row.jobs
            for row in connection.execute(
                sa.select(jobs.c.status, sa.func.count().label("jobs")).group_by(jobs.c.status)
            )
        }
    due, leased = pieces.get("due", (0, 0)), pieces.get("leased", (0, 0))
    return {
        "chunks_due": due[0],
        "images_due": due[1],
        "chunks_leased": leased[0],
        "images_leased": leased[1],
        "jobs": by_status,
    }


def doorbells(app: Celery) -> dict[str, int | None]:
    """Messages that wait in each queue of the broker; None where it does not answer."""
    names = (CONTROL_QUEUE, *CLASSIFY_QUEUES.values(), *PREDICT_QUEUES.values())
    found: dict[str, int | None] = {}
    for name in names:
        found[name] = waiting(app, name)
        if found[name] is None:  # asking again would wait again
            return dict.fromkeys(names)
    return found


def disk(settings: Settings) -> dict[str, int]:
    """The disk of the data folder, in bytes; ``reserve`` is what uploads leave free."""
    usage = shutil.disk_usage(settings.data_dir)
    return {"total": usage.total, "free": usage.free, "reserve": settings.min_free_bytes}


def recent_trouble(db: Database, owner: str) -> dict[str, Any]:
    """What went wrong in the owner's recent jobs: failed images by code, and jobs that failed as a whole or wait."""
    mine = (jobs.c.owner == owner, jobs.c.status != "deleting")
    with db.read() as connection:
        recent = (
            connection.execute(
                sa.select(jobs.c.id).where(*mine, jobs.c.failed > 0).order_by(jobs.c.id.desc()).limit(RECENT_JOBS)
            )
            .scalars()
            .all()
        )
        codes = connection.execute(
            sa.select(
                images.c.error_code.label("code"),
                sa.func.count().label("images"),
                sa.func.count(images.c.job_id.distinct()).label("jobs"),
                sa.func.max(images.c.job_id).label("last"),
            )
            .where(images.c.job_id.in_(recent), images.c.outcome == "failed")
            .group_by(images.c.error_code)
            .order_by(sa.func.count().desc(), images.c.error_code)
        ).all()
        names = dict(
            connection.execute(
                sa.select(jobs.c.id, jobs.c.public_id).where(jobs.c.id.in_([row.last for row in codes]))
            ).all()
        )
        stuck = connection.execute(
            sa.select(
                jobs.c.public_id, jobs.c.status, jobs.c.source_text, jobs.c.failed_at,
                sa.func.coalesce(jobs.c.error_code, jobs.c.notice_code).label("code"),
                sa.func.coalesce(jobs.c.error, jobs.c.notice).label("detail"),
            )
            .where(*mine, sa.or_(jobs.c.status == "failed", jobs.c.notice_code.is_not(None)))
            .order_by(jobs.c.id.desc())
            .limit(RECENT_FAILURES)
        ).all()  # fmt: skip
    return {
        "images": [
            {"code": row.code, "images": row.images, "jobs": row.jobs, "last_job": names.get(row.last)}
            for row in codes
        ],
        "jobs": [
            {"job": row.public_id, "status": row.status, "source": row.source_text, "code": row.code or "",
             "detail": row.detail or "", "failed_at": row.failed_at}
            for row in stuck
        ],
    }  # fmt: skip
