"""Drafts: jobs that take uploads until they are submitted. The rows of what was uploaded, and the counts on the job.

Lock order here: the job first, by the ``UPDATE`` that also proves that it is a draft still; a draft has no chunks.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.errors import ConflictError, NotFoundError, TooLargeError
from mien.ledger.usage import add_usage
from mien.paging import Page, decode_cursor, encode_cursor
from mien.paths import path_text
from mien.schema import jobs, uploads


@dataclass(frozen=True)
class Arrived:
    """A file that lies whole on the disk: ``path`` is the client's, ``stored_name`` ours, below the job's folder."""

    path: bytes
    stored_name: str
    size: int
    sha256: bytes


@dataclass(frozen=True)
class UploadLimits:
    """Most files and bytes of one job."""

    files: int
    size: int

    def check(self, files: int, size: int) -> None:
        """Refuse what is beyond the limits.

        Raises:
            TooLargeError: ``job_too_large``.
        """
        if files > self.files:
            raise TooLargeError(
                f"A job takes {self.files:,} uploaded images (MIEN_MAX_UPLOAD_FILES); this would be {files:,}.",
                code="job_too_large",
            )
        if size > self.size:
            raise TooLargeError(
                f"A job takes {self.size:,} bytes of uploads (MIEN_MAX_UPLOAD_BYTES); this would be {size:,}.",
                code="job_too_large",
            )


@dataclass(frozen=True)
class Recorded:
    """What a recording changed: new paths, the stored names that nothing refers to any more, the job's new counts."""

    new: int
    replaced: int
    superseded: tuple[str, ...]
    files: int
    size: int


def record_uploads(db: Database, job_id: int, arrived: Sequence[Arrived], limits: UploadLimits) -> Recorded:
    """Write down files that have arrived; the same path again replaces the earlier one.

    Raises:
        ConflictError: ``not_a_draft``, it was submitted or ended meanwhile.
        NotFoundError: it is gone.
        TooLargeError: ``job_too_large``.
    """
    latest = {file.path: file for file in arrived}
    superseded = [file.stored_name for file in arrived if latest[file.path] is not file]
    with db.write() as connection:
        _hold_draft(connection, job_id)
        earlier = {
            row.path: row
            for row in connection.execute(
                sa.select(uploads.c.id, uploads.c.path, uploads.c.stored_name, uploads.c.bytes).where(
                    uploads.c.job_id == job_id, uploads.c.path.in_(list(latest))
                )
            )
        }
        new = [file for path, file in latest.items() if path not in earlier]
        added = sum(file.size for file in latest.values()) - sum(row.bytes for row in earlier.values())
        files, size, owner = connection.execute(
            jobs.update()
            .where(jobs.c.id == job_id)
            .values(upload_files=jobs.c.upload_files + len(new), upload_bytes=jobs.c.upload_bytes + added)
            .returning(jobs.c.upload_files, jobs.c.upload_bytes, jobs.c.owner)
        ).one()
        limits.check(files, size)
        now = db.now(connection)
        insert_uploads(connection, job_id, new, now)
        if earlier:
            connection.execute(_REPLACE, [_replacement(row.id, latest[path], now) for path, row in earlier.items()])
        add_usage(connection, owner, now, size=sum(file.size for file in arrived))
    superseded += [row.stored_name for row in earlier.values()]
    return Recorded(len(new), len(earlier), tuple(superseded), files, size)


_REPLACE = (
    uploads.update()
    .where(uploads.c.id == sa.bindparam("upload_id"))
    .values(
        **{name: sa.bindparam(f"new_{name}") for name in ("stored_name", "bytes", "sha256", "received_at")},
    )
)


def _replacement(upload_id: int, file: Arrived, now: dt.datetime) -> dict[str, Any]:
    return {
        "upload_id": upload_id,
        "new_stored_name": file.stored_name,
        "new_bytes": file.size,
        "new_sha256": file.sha256,
        "new_received_at": now,
    }


def insert_uploads(connection: sa.Connection, job_id: int, files: Iterable[Arrived], now: dt.datetime) -> None:
    """Write rows for files whose paths the job does not hold yet."""
    rows = [
        {
            "job_id": job_id,
            "path": file.path,
            "path_text": path_text(file.path),
            "stored_name": file.stored_name,
            "bytes": file.size,
            "sha256": file.sha256,
            "received_at": now,
        }
        for file in files
    ]
    if rows:
        connection.execute(uploads.insert(), rows)


def submit_draft(db: Database, job_id: int) -> None:
    """From draft to ``queued``: what has arrived is all there is.

    Raises:
        ConflictError: ``not_a_draft``; ``draft_empty``, nothing has arrived.
        NotFoundError: it is gone.
    """
    with db.write() as connection:
        if not _hold_draft(connection, job_id):
            raise ConflictError("No image has arrived yet; upload some, then submit.", code="draft_empty")
        now = db.now(connection)
        connection.execute(
            jobs.update().where(jobs.c.id == job_id).values(status="queued", request="expand", queued_at=now)
        )


def _hold_draft(connection: sa.Connection, job_id: int) -> int:
    """Lock the draft until the end of the transaction; gives the number of its files."""
    held = connection.execute(
        jobs.update()
        .where(jobs.c.id == job_id, jobs.c.status == "draft")
        .values(version=jobs.c.version + 1)
        .returning(jobs.c.upload_files)
    ).scalar_one_or_none()
    if held is None:
        status = connection.execute(sa.select(jobs.c.status).where(jobs.c.id == job_id)).scalar_one_or_none()
        raise job_gone() if status is None else not_a_draft(status)
    return int(held)


def not_a_draft(status: str) -> ConflictError:
    """The job takes no uploads any more."""
    return ConflictError(
        f"The job is {status}; only a draft takes uploads or can be submitted. Make a new job for more images.",
        code="not_a_draft",
    )


def job_gone() -> NotFoundError:
    """The job was deleted, or expired, while something was on its way to it."""
    return NotFoundError("The job was deleted meanwhile.", code="unknown_job")


def list_uploads(
    db: Database, job_id: int, public_id: str, *, after: str | None = None, limit: int = 1000
) -> Page[sa.Row[Any]]:
    """What has arrived and is kept (path, bytes, sha256, received_at), in path order.

    Raises:
        InvalidRequestError: ``bad_cursor``, ``cursor_of_another_job``.
    """
    statement = (
        sa.select(uploads.c.id, uploads.c.path, uploads.c.bytes, uploads.c.sha256, uploads.c.received_at)
        .where(uploads.c.job_id == job_id)
        .order_by(uploads.c.path)
        .limit(limit + 1)
    )
    scope = f"{public_id} uploads"
    with db.read() as connection:
        if after is not None:
            (last,) = decode_cursor(after, scope, 1)
            place = connection.execute(sa.select(uploads.c.path).where(uploads.c.id == last)).scalar_one_or_none()
            # an upload that was deleted since leaves no place behind: the list begins anew, nothing is missed
            statement = statement.where(uploads.c.path > (place or b""))
        rows: Sequence[Any] = connection.execute(statement).all()
    shown = rows[:limit]
    return Page(
        items=list(shown), next=encode_cursor(scope, shown[-1].id) if shown else after, has_more=len(rows) > limit
    )


def paths_after(db: Database, job_id: int, after: bytes | None, limit: int) -> list[bytes]:
    """The next paths of a job's uploads in their order."""
    statement = sa.select(uploads.c.path).where(uploads.c.job_id == job_id).order_by(uploads.c.path).limit(limit)
    if after is not None:
        statement = statement.where(uploads.c.path > after)
    with db.read() as connection:
        return list(connection.execute(statement).scalars())


def known_names(db: Database, job_id: int, names: Collection[str]) -> set[str]:
    """Those of the stored names that the job's rows refer to."""
    with db.read() as connection:
        return set(
            connection.execute(
                sa.select(uploads.c.stored_name).where(
                    uploads.c.job_id == job_id, uploads.c.stored_name.in_(list(names))
                )
            ).scalars()
        )


def forget_uploads(db: Database, job_id: int) -> None:
    """Delete the rows of a job's uploads, once their files are gone."""
    with db.write() as connection:
        connection.execute(
            jobs.update().where(jobs.c.id == job_id).values(upload_files=0, upload_bytes=0, version=jobs.c.version + 1)
        )
        connection.execute(uploads.delete().where(uploads.c.job_id == job_id))


def expire_drafts(db: Database, idle_s: float) -> int:
    """Ask for the deletion of drafts into which nothing has come for so long; gives how many."""
    with db.write() as connection:
        now = db.now(connection)
        since = now - dt.timedelta(seconds=idle_s)
        lately = sa.exists().where(uploads.c.job_id == jobs.c.id, uploads.c.received_at >= since)
        return connection.execute(
            jobs.update()
            .where(jobs.c.status == "draft", jobs.c.draft_at < since, ~lately)
            .values(status="deleting", deleting_at=now, version=jobs.c.version + 1)
        ).rowcount


def cancelled_with_uploads(db: Database) -> list[tuple[int, str]]:
    """Cancelled jobs, (id, public id), whose uploads are still kept."""
    with db.read() as connection:
        rows = connection.execute(
            sa.select(jobs.c.id, jobs.c.public_id).where(jobs.c.status == "cancelled", jobs.c.upload_files > 0)
        )
        return [(row.id, row.public_id) for row in rows]


def without_job(db: Database, public_ids: Collection[str]) -> set[str]:
    """Those of the ids that no job has."""
    with db.read() as connection:
        known = connection.execute(sa.select(jobs.c.public_id).where(jobs.c.public_id.in_(list(public_ids)))).scalars()
        return set(public_ids) - set(known)
