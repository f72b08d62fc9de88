"""Expansion: names become image rows and chunks, slice by slice, each slice one transaction under the job's lease."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import sqlalchemy as sa

from mien.batches import batched
from mien.database import Database
from mien.ledger.counters import move_counters
from mien.ledger.tallies import recount
from mien.ledger.usage import add_usage
from mien.ledger.work import JobLease, check_still_wanted, clear_limit_notice
from mien.paths import path_text
from mien.schema import MAX_PATH_BYTES, chunks, images, jobs

Listing = tuple[str | None, int | None]
NOTHING_LISTED: Mapping[bytes, Listing] = MappingProxyType({})
MAX_ETAG = 200
"""A longer tag is not kept, and a change of its object not noticed; S3's have 34 to 40 characters."""


def begin_expansion(db: Database, lease: JobLease) -> None:
    """The job is ``expanding`` from here on. After a crash the walk starts again, so ``skipped`` does too."""
    with db.write() as connection:
        now = db.now(connection)
        check_still_wanted(
            connection,
            lease,
            now,
            status=sa.case((jobs.c.status == "queued", "expanding"), else_=jobs.c.status),
            expanding_at=sa.func.coalesce(jobs.c.expanding_at, sa.bindparam("at", now, jobs.c.expanding_at.type)),
            skipped=0,
            version=jobs.c.version + 1,
            **clear_limit_notice(),
        )


def write_slice(
    db: Database,
    lease: JobLease,
    paths: Sequence[bytes],
    skipped: int,
    chunk_size: int,
    *,
    listed: Mapping[bytes, Listing] = NOTHING_LISTED,
) -> int:
    """Write image rows and chunks for the ``paths`` that are not there yet; gives how many images wait for workers.

    ``listed``: of objects, (tag of the content, size) as they were listed, by path.

    Raises:
        JobEndedError, LeaseLostError: nothing of this slice was written.
    """
    with db.write() as connection:
        now = db.now(connection)
        keys = {_key(path): path for path in paths}
        known = set(
            connection.execute(
                sa.select(images.c.path).where(images.c.job_id == lease.job_id, images.c.path.in_(keys))
            ).scalars()
        )
        new = [(key, path) for key, path in keys.items() if key not in known]
        usable = [key for key, path in new if key == path]
        too_long = [(key, path) for key, path in new if key != path]
        for piece in batched(usable, chunk_size):
            _write_chunk(connection, lease.job_id, piece, listed)
        # the job comes last: the lock order of every transaction of the ledger
        check_still_wanted(connection, lease, now)
        moved = {"total": len(new), "pending": len(usable), "failed": len(too_long), "skipped": skipped}
        row = move_counters(connection, lease.job_id, now, moved | {"commits": 1 if too_long else 0})
        if too_long:
            _write_too_long(connection, lease.job_id, row.commits, too_long)
        owner = connection.execute(sa.select(jobs.c.owner).where(jobs.c.id == lease.job_id)).scalar_one()
        add_usage(connection, owner, now, images=len(new))
    return int(row.pending)


def finish_expansion(db: Database, lease: JobLease, notice: str | None) -> str:
    """The walk is done: the job is ``running``, or ``completed`` where everything has been classified meanwhile."""
    with db.write() as connection:
        now = db.now(connection)
        check_still_wanted(
            connection,
            lease,
            now,
            expanded_at=now,
            running_at=sa.func.coalesce(jobs.c.running_at, sa.bindparam("at", now, jobs.c.running_at.type)),
            request=sa.case((jobs.c.request == "expand", None), else_=jobs.c.request),
            status=sa.case((jobs.c.status == "expanding", "running"), else_=jobs.c.status),
            notice_code=None if notice is None else "folders_unreadable",
            notice=notice,
        )
        return str(move_counters(connection, lease.job_id, now, {}).status)


def _key(path: bytes) -> bytes:
    """The path as stored. One that no index can hold is cut and told apart by a hash: it ends as ``path_too_long``."""
    if len(path) <= MAX_PATH_BYTES:
        return path
    return path[: MAX_PATH_BYTES - 68] + b"...#" + hashlib.sha256(path).hexdigest().encode()


def _write_chunk(
    connection: sa.Connection, job_id: int, keys: Sequence[bytes], listed: Mapping[bytes, Listing]
) -> None:
    chunk_id = connection.execute(
        chunks.insert().values(job_id=job_id, state="due", images=len(keys)).returning(chunks.c.id)
    ).scalar_one()
    connection.execute(
        images.insert(),
        [
            {
                "job_id": job_id,
                "chunk_id": chunk_id,
                "position": position,
                "path": key,
                "path_text": path_text(key),
                "outcome": "pending",
                "etag": _storable(listed.get(key, (None, None))[0]),
                "bytes": listed.get(key, (None, None))[1],
            }
            for position, key in enumerate(keys)
        ],
    )


def _storable(etag: str | None) -> str | None:
    return etag if etag is not None and len(etag) <= MAX_ETAG else None


def _write_too_long(
    connection: sa.Connection, job_id: int, commit_number: int, paths: Sequence[tuple[bytes, bytes]]
) -> None:
    chunk_id = connection.execute(
        chunks.insert()
        .values(job_id=job_id, state="done", images=len(paths), commit_number=commit_number)
        .returning(chunks.c.id)
    ).scalar_one()
    connection.execute(
        images.insert(),
        [
            {
                "job_id": job_id,
                "chunk_id": chunk_id,
                "position": position,
                "path": key,
                "path_text": path_text(key),
                "outcome": "failed",
                "error_code": "path_too_long",
                "error": f"The path has {len(path)} bytes; at most {MAX_PATH_BYTES} are possible. Shorten it.",
            }
            for position, (key, path) in enumerate(paths)
        ],
    )
    recount(connection, job_id, [chunk_id])
