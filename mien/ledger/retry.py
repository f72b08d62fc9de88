"""Retry: the failed images of a job that has ended go back to ``pending``, in new chunks."""

from __future__ import annotations

import sqlalchemy as sa

from mien.batches import batched
from mien.database import Database
from mien.ledger.counters import move_counters
from mien.ledger.tallies import recount
from mien.ledger.work import JobLease, check_still_wanted, clear_limit_notice
from mien.schema import chunks, images, jobs

SLICE = 2000


def begin_retry(db: Database, lease: JobLease) -> bool:
    """The job runs again. Gives whether its expansion was ever finished."""
    with db.write() as connection:
        now = db.now(connection)
        check_still_wanted(
            connection,
            lease,
            now,
            status=sa.case((jobs.c.expanded_at.is_not(None), "running"), else_="expanding"),
            running_at=sa.func.coalesce(jobs.c.running_at, sa.bindparam("at", now, jobs.c.running_at.type)),
            version=jobs.c.version + 1,
            **clear_limit_notice(),
        )
        expanded = connection.execute(sa.select(jobs.c.expanded_at).where(jobs.c.id == lease.job_id)).scalar_one()
    return expanded is not None


def retry_slice(db: Database, lease: JobLease, after: int, chunk_size: int) -> int | None:
    """Move the next failed images (ids above ``after``) into new chunks; gives the last id, None when there is none.

    A path too long stays failed: trying again cannot help.
    """
    with db.write() as connection:
        now = db.now(connection)
        rows = connection.execute(
            sa.select(images.c.id, images.c.chunk_id)
            .where(
                images.c.job_id == lease.job_id,
                images.c.outcome == "failed",
                images.c.error_code != "path_too_long",
                images.c.id > after,
            )
            .order_by(images.c.id)
            .limit(SLICE)
        ).all()
        failed = [row.id for row in rows]
        # what was listed counts no more: an object that was changed is classified as it is now
        connection.execute(images.update().where(images.c.id.in_(failed)).values(etag=None))
        for piece in batched(failed, chunk_size):
            move_to_new_chunk(connection, lease.job_id, piece)
        recount(connection, lease.job_id, {row.chunk_id for row in rows})
        check_still_wanted(connection, lease, now)
        move_counters(connection, lease.job_id, now, {"failed": -len(failed), "pending": len(failed)})
    return failed[-1] if failed else None


def finish_retry(db: Database, lease: JobLease) -> None:
    """Nothing more to put back: the job ends when what is pending has ended."""
    with db.write() as connection:
        now = db.now(connection)
        check_still_wanted(connection, lease, now, request=None)
        move_counters(connection, lease.job_id, now, {})


def move_to_new_chunk(connection: sa.Connection, job_id: int, image_ids: tuple[int, ...], losses: int = 0) -> None:
    """Make a due chunk of these images, each ``pending`` from here on."""
    chunk_id = connection.execute(
        chunks.insert().values(job_id=job_id, state="due", images=len(image_ids), losses=losses).returning(chunks.c.id)
    ).scalar_one()
    connection.execute(
        images.update()
        .where(images.c.id == sa.bindparam("image_id"))
        .values(
            chunk_id=chunk_id, position=sa.bindparam("new_position"), outcome="pending", error_code=None, error=None
        ),
        [{"image_id": image_id, "new_position": position} for position, image_id in enumerate(image_ids)],
    )
