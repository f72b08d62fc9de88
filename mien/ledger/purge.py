"""Cancel and delete, in slices of whole chunks, so that no transaction is long and every counter stays exact."""

from __future__ import annotations

import sqlalchemy as sa

from mien.database import Database
from mien.ledger.counters import move_counters
from mien.ledger.receipts import count_for_job, finish_for_job
from mien.ledger.tallies import recount
from mien.ledger.work import JobLease, check_job
from mien.schema import (
    chunks,
    corrections,
    deliveries,
    faces,
    images,
    job_metadata,
    jobs,
    review_faces,
    reviews,
    tallies,
    uploads,
)

CHUNKS_PER_SLICE = 32


def end_pending_slice(db: Database, lease: JobLease) -> bool:
    """Give the waiting images of some chunks their outcome: ``cancelled``, or ``failed`` where the job has failed.

    Gives whether chunks were found; those in a worker's hands are not touched: it commits them or hands them back.
    """
    with db.write() as connection:
        now = db.now(connection)
        due = (
            connection.execute(
                sa.select(chunks.c.id)
                .where(chunks.c.job_id == lease.job_id, chunks.c.state == "due")
                .order_by(chunks.c.id)
                .limit(CHUNKS_PER_SLICE)
                .with_for_update(key_share=True)
            )
            .scalars()
            .all()
        )
        job = connection.execute(
            sa.select(jobs.c.status, jobs.c.error_code, jobs.c.error).where(jobs.c.id == lease.job_id)
        ).one()
        failed = job.status == "failed"
        outcome = "failed" if failed else "cancelled"
        ended = connection.execute(
            images.update()
            .where(images.c.chunk_id.in_(due), images.c.outcome == "pending")
            .values(outcome=outcome, error_code=job.error_code if failed else None, error=job.error if failed else None)
        ).rowcount
        recount(connection, lease.job_id, due)
        check_job(connection, lease, now)
        commits = move_counters(
            connection, lease.job_id, now, {outcome: ended, "pending": -ended, "commits": len(due)}
        ).commits
        if due:
            connection.execute(
                chunks.update().where(chunks.c.id == sa.bindparam("chunk_id")).values(
                    state="done", commit_number=sa.bindparam("number")
                ),
                [
                    {"chunk_id": chunk_id, "number": commits - len(due) + 1 + place}
                    for place, chunk_id in enumerate(due)
                ],
            )  # fmt: skip
    return bool(due)


def delete_slice(db: Database, lease: JobLease) -> bool:
    """Delete some chunks with their images and faces; gives whether any were left. Late commits find no chunk."""
    with db.write() as connection:
        now = db.now(connection)
        doomed = (
            connection.execute(
                sa.select(chunks.c.id)
                .where(chunks.c.job_id == lease.job_id)
                .order_by(chunks.c.id)
                .limit(CHUNKS_PER_SLICE)
                .with_for_update()
            )
            .scalars()
            .all()
        )
        if not doomed:
            return False
        inside = sa.select(images.c.id).where(images.c.chunk_id.in_(doomed))
        counted = connection.execute(
            sa.select(images.c.outcome, sa.func.count().label("number"), sa.func.sum(images.c.faces).label("faces"))
            .where(images.c.chunk_id.in_(doomed))
            .group_by(images.c.outcome)
        ).all()
        corrected = connection.execute(corrections.delete().where(corrections.c.image_id.in_(inside))).rowcount
        connection.execute(review_faces.delete().where(review_faces.c.image_id.in_(inside)))
        connection.execute(faces.delete().where(faces.c.image_id.in_(inside)))
        connection.execute(images.delete().where(images.c.chunk_id.in_(doomed)))
        connection.execute(tallies.delete().where(tallies.c.job_id == lease.job_id, tallies.c.chunk_id.in_(doomed)))
        connection.execute(chunks.delete().where(chunks.c.id.in_(doomed)))
        check_job(connection, lease, now)
        moved: dict[str, float] = {row.outcome: -row.number for row in counted}
        moved["total"] = -sum(row.number for row in counted)
        moved["faces"] = -sum(int(row.faces) for row in counted)
        move_counters(connection, lease.job_id, now, moved)
        count_for_job(
            connection,
            lease.public_id,
            {"images": -int(moved["total"]), "faces": -int(moved["faces"]), "corrections": corrected},
        )
    return True


def delete_job_row(db: Database, lease: JobLease) -> None:
    """The last step of a deletion: the job itself. Its id answers 404 from here on."""
    with db.write() as connection:
        now = db.now(connection)
        uploaded = connection.execute(uploads.delete().where(uploads.c.job_id == lease.job_id)).rowcount
        connection.execute(job_metadata.delete().where(job_metadata.c.job_id == lease.job_id))
        connection.execute(reviews.delete().where(reviews.c.job_id == lease.job_id))
        connection.execute(deliveries.delete().where(deliveries.c.job_id == lease.job_id))
        check_job(connection, lease, now)
        connection.execute(jobs.delete().where(jobs.c.id == lease.job_id))
        count_for_job(connection, lease.public_id, {"jobs": 1, "uploads": uploaded})
        finish_for_job(connection, lease.public_id, now)
