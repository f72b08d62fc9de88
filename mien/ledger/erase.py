"""Single images and uploads are erased, in slices, with every counter and tally exact and a receipt that counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mien.database import Database
from mien.ledger.counters import move_counters
from mien.ledger.receipts import add_counts, finish_receipt
from mien.ledger.tallies import recount
from mien.ledger.work import TAKES_WORK
from mien.schema import chunks, corrections, faces, images, jobs, receipts, review_faces, uploads

SLICE = 500


@dataclass(frozen=True)
class Wanted:
    """Which images of one job: those of these paths, or those with this content."""

    paths: tuple[bytes, ...] = ()
    sha256: bytes | None = None

    def images(self, job_id: int) -> sa.ColumnElement[bool]:
        """Those in the table of images."""
        if self.sha256 is None:
            return sa.and_(images.c.job_id == job_id, images.c.path.in_(self.paths))
        read = sa.select(images.c.id).where(images.c.job_id == job_id, images.c.sha256 == self.sha256)
        # an upload's content is known before it is read
        uploaded = (
            sa.select(images.c.id)
            .join(uploads, sa.and_(uploads.c.job_id == images.c.job_id, uploads.c.path == images.c.path))
            .where(uploads.c.job_id == job_id, uploads.c.sha256 == self.sha256)
        )
        return images.c.id.in_(sa.union(read, uploaded))

    def uploads(self, job_id: int) -> sa.ColumnElement[bool]:
        """Those in the table of uploads."""
        which = uploads.c.path.in_(self.paths) if self.sha256 is None else uploads.c.sha256 == self.sha256
        return sa.and_(uploads.c.job_id == job_id, which)


@dataclass(frozen=True)
class UploadRow:
    """An uploaded file as it has to be deleted."""

    id: int
    stored_name: str
    size: int


def erase_slice(db: Database, receipt_id: int, job_id: int, wanted: Wanted) -> bool:
    """Delete some of the images with their faces and corrections; gives whether there were any.

    A chunk that is in a worker's hands is taken out of them: what the worker commits later is refused by its token, and
    the rest of the chunk is due again, uncharged.
    """
    with db.write() as connection:
        now = db.now(connection)
        found = connection.execute(
            sa.select(images.c.id, images.c.chunk_id).where(wanted.images(job_id)).order_by(images.c.id).limit(SLICE)
        ).all()
        if not found:
            return False
        held = (
            connection.execute(
                sa.select(chunks.c.id)
                .where(chunks.c.id.in_({row.chunk_id for row in found}))
                .order_by(chunks.c.id)
                .with_for_update(key_share=True)
            )
            .scalars()
            .all()
        )
        # what a retry has moved into another chunk meanwhile is left to the next slice
        doomed = connection.execute(
            sa.select(images.c.id, images.c.chunk_id, images.c.outcome, images.c.faces, images.c.cached)
            .where(images.c.id.in_([row.id for row in found]), images.c.chunk_id.in_(held))
            .order_by(images.c.id)
            .with_for_update(key_share=True)
        ).all()
        corrected = _delete_rows(connection, [row.id for row in doomed])
        _shrink_chunks(connection, job_id, {row.chunk_id for row in doomed})
        moved: dict[str, float] = {"total": -len(doomed)}
        for row in doomed:
            moved[row.outcome] = moved.get(row.outcome, 0) - 1
        moved["faces"] = -sum(row.faces for row in doomed)
        moved["cached"] = -sum(row.cached for row in doomed)
        move_counters(connection, job_id, now, moved)
        add_counts(
            connection,
            receipt_id,
            {"images": len(doomed), "faces": sum(row.faces for row in doomed), "corrections": corrected},
        )
    return True


def image_ids(connection: sa.Connection, job_id: int, wanted: Wanted) -> list[int]:
    """The images that :func:`erase_slice` takes next."""
    statement = sa.select(images.c.id).where(wanted.images(job_id)).order_by(images.c.id).limit(SLICE)
    return list(connection.execute(statement).scalars())


def _delete_rows(connection: sa.Connection, image_ids: Sequence[int]) -> int:
    corrected = connection.execute(corrections.delete().where(corrections.c.image_id.in_(image_ids))).rowcount
    connection.execute(review_faces.delete().where(review_faces.c.image_id.in_(image_ids)))
    connection.execute(faces.delete().where(faces.c.image_id.in_(image_ids)))
    connection.execute(images.delete().where(images.c.id.in_(image_ids)))
    return corrected


def _shrink_chunks(connection: sa.Connection, job_id: int, chunk_ids: Collection[int]) -> None:
    inside = sorted(chunk_ids)
    recount(connection, job_id, inside)
    connection.execute(
        chunks.update()
        .where(chunks.c.id.in_(inside), chunks.c.state == "leased")
        .values(state="due", token=None, lease_owner=None, lease_expires_at=None)
    )
    left = sa.select(sa.func.count()).where(images.c.chunk_id == chunks.c.id).scalar_subquery()
    connection.execute(chunks.update().where(chunks.c.id.in_(inside)).values(images=left))
    connection.execute(chunks.delete().where(chunks.c.id.in_(inside), chunks.c.images == 0))


def some_uploads(db: Database, job_id: int, wanted: Wanted) -> list[UploadRow]:
    """The next uploads that have to go: first their files, then :func:`forget_some`."""
    with db.read() as connection:
        rows = connection.execute(
            sa.select(uploads.c.id, uploads.c.stored_name, uploads.c.bytes)
            .where(wanted.uploads(job_id))
            .order_by(uploads.c.id)
            .limit(SLICE)
        )
        return [UploadRow(row.id, row.stored_name, row.bytes) for row in rows]


def forget_some(db: Database, receipt_id: int, job_id: int, gone: Sequence[UploadRow]) -> None:
    """Delete the rows of uploads whose files are gone. One that was replaced meanwhile stays, with its new file."""
    with db.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(version=jobs.c.version + 1))
        deleted = connection.execute(
            uploads.delete()
            .where(
                uploads.c.id.in_([row.id for row in gone]), uploads.c.stored_name.in_([row.stored_name for row in gone])
            )
            .returning(uploads.c.bytes)
        ).all()
        connection.execute(
            jobs.update()
            .where(jobs.c.id == job_id)
            .values(
                upload_files=jobs.c.upload_files - len(deleted),
                upload_bytes=jobs.c.upload_bytes - sum(row.bytes for row in deleted),
            )
        )
        add_counts(connection, receipt_id, {"uploads": len(deleted)})


def jobs_to_search(db: Database, owner: str, sha256: bytes) -> list[int]:
    """The owner's jobs that hold an image or an upload with this content."""
    held = sa.union(
        sa.select(images.c.job_id).where(images.c.sha256 == sha256),
        sa.select(uploads.c.job_id).where(uploads.c.sha256 == sha256),
    )
    with db.read() as connection:
        statement = sa.select(jobs.c.id).where(
            jobs.c.owner == owner, jobs.c.status != "deleting", jobs.c.id.in_(held)
        )  # fmt: skip
        return list(connection.execute(statement.order_by(jobs.c.id)).scalars())


def is_expanding(connection: sa.Connection, job_id: int) -> bool:
    """Whether the job's walk may still add images, also such as were erased (after a crash it begins anew)."""
    row = connection.execute(sa.select(jobs.c.status, jobs.c.expanded_at).where(jobs.c.id == job_id)).one_or_none()
    return row is not None and row.expanded_at is None and row.status in TAKES_WORK


def finish_if_done(db: Database, receipt_id: int, owner: str, job_id: int | None, wanted: Wanted) -> bool:
    """Finish the receipt if nothing is left and nothing can come any more; gives whether it is finished.

    For a content in all jobs (``job_id`` None) that means: every job that was there when it was asked has ended. Before
    that an image may be classified that was not read yet.
    """
    with db.write() as connection:
        now = db.now(connection)
        if job_id is not None:
            if is_expanding(connection, job_id) or _any_left(connection, job_id, wanted):
                return False
        elif wanted.sha256 is not None:
            asked_at = sa.select(receipts.c.requested_at).where(receipts.c.id == receipt_id).scalar_subquery()
            at_work = connection.execute(
                sa.select(jobs.c.id)
                .where(
                    jobs.c.owner == owner,
                    jobs.c.status.in_((*TAKES_WORK, "cancelling")),
                    jobs.c.created_at <= asked_at,
                )
                .limit(1)
            ).first()
            if at_work is not None:
                return False
        finish_receipt(connection, receipt_id, now)
    return True


def _any_left(connection: sa.Connection, job_id: int, wanted: Wanted) -> bool:
    return any(
        connection.execute(sa.select(table.c.id).where(which).limit(1)).first() is not None
        for table, which in ((images, wanted.images(job_id)), (uploads, wanted.uploads(job_id)))
    )
