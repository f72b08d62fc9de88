"""Deletions as the outside asks for them and sees them: each is answered by a receipt, which counts while it goes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.erased_names import paths_named
from mien.errors import NotFoundError
from mien.jobs import owned_by, unknown_job
from mien.ledger.receipts import job_receipt, open_receipt
from mien.paging import Page, decode_cursor, encode_cursor
from mien.paths import exact_name
from mien.schema import jobs, receipts


@dataclass(frozen=True)
class Receipt:
    """A deletion: of a job, of images of it (``files``), or of a content in all of the owner's jobs (``sha256``)."""

    public_id: str
    kind: str
    reason: str
    """``request``, or ``retention``: the job's own time had come."""
    job: str | None
    files: list[str] | None
    sha256: str | None
    counts: dict[str, int]
    requested_at: dt.datetime
    finished_at: dt.datetime | None


def request_delete(db: Database, owner: str | None, public_id: str) -> Receipt:
    """Ask for the job and everything of it to be deleted. Asking again gives the same receipt, which is its owner's,
    also where an admin asks (``owner`` None).

    Raises:
        NotFoundError: ``unknown_job``.
    """
    with db.write() as connection:
        now = db.now(connection)
        mine = owned_by(owner, public_id)
        connection.execute(
            jobs.update()
            .where(mine, jobs.c.status != "deleting")
            .values(status="deleting", deleting_at=now, request=None, version=jobs.c.version + 1)
        )
        whose = connection.execute(sa.select(jobs.c.owner).where(mine)).scalar_one_or_none()
        if whose is None:
            raise unknown_job(public_id)
        receipt = job_receipt(connection, whose, public_id, now)
        return _one(connection, whose, receipt)


def request_images(db: Database, owner: str | None, public_id: str, files: Sequence[str]) -> Receipt:
    """Ask for single images of a job to be deleted, by the names that results give them; all of them, or none.

    Raises:
        NotFoundError: ``unknown_job``; ``unknown_image``, the job holds no image of a name.
    """
    wanted = list(dict.fromkeys(files))
    with db.write() as connection:
        now = db.now(connection)
        job = connection.execute(
            sa.select(jobs.c.id, jobs.c.owner).where(owned_by(owner, public_id), jobs.c.status != "deleting")
        ).one_or_none()
        if job is None:
            raise unknown_job(public_id)
        known = {exact_name(path) for path in paths_named(connection, job.id, wanted)}
        if missing := [name for name in wanted if name not in known]:
            more = f" and {len(missing) - 1} more of those named" if len(missing) > 1 else ""
            raise NotFoundError(
                f"The job holds no image {missing[0]!r}{more}; nothing was deleted.", code="unknown_image", field="path"
            )
        receipt = open_receipt(connection, job.owner, "images", {"job": public_id, "files": wanted}, now)
        return _one(connection, job.owner, receipt)


def request_content(db: Database, owner: str, sha256: str) -> Receipt:
    """Ask for every image with this SHA-256 (hexadecimal) in all of the owner's jobs to be deleted."""
    with db.write() as connection:
        receipt = open_receipt(connection, owner, "sha256", {"sha256": sha256.lower()}, db.now(connection))
        return _one(connection, owner, receipt)


def get_receipt(db: Database, owner: str | None, public_id: str) -> Receipt:
    """The receipt of this owner, or of anybody where that is None.

    Raises:
        NotFoundError: ``unknown_receipt``.
    """
    with db.read() as connection:
        return _one(connection, owner, public_id)


def list_receipts(db: Database, owner: str, *, after: str | None = None, limit: int = 50) -> Page[Receipt]:
    """The owner's receipts, newest first.

    Raises:
        InvalidRequestError: ``bad_cursor``, ``cursor_of_another_job``.
    """
    statement = sa.select(receipts).where(receipts.c.owner == owner).order_by(receipts.c.id.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(receipts.c.id < decode_cursor(after, "receipts", 1)[0])
    with db.read() as connection:
        rows = connection.execute(statement).all()
    shown = rows[:limit]
    return Page(
        items=[_as_receipt(row) for row in shown],
        next=encode_cursor("receipts", shown[-1].id) if shown else after,
        has_more=len(rows) > limit,
    )


def _one(connection: sa.Connection, owner: str | None, public_id: str) -> Receipt:
    statement = sa.select(receipts).where(receipts.c.public_id == public_id)
    if owner is not None:
        statement = statement.where(receipts.c.owner == owner)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no receipt {public_id!r} of yours.", code="unknown_receipt")
    return _as_receipt(row)


def _as_receipt(row: sa.Row[Any]) -> Receipt:
    target = json.loads(row.target)
    return Receipt(
        public_id=row.public_id,
        kind=row.kind,
        reason=target.get("reason", "request"),
        job=target.get("job"),
        files=target.get("files"),
        sha256=target.get("sha256"),
        counts=row.counts,
        requested_at=row.requested_at,
        finished_at=row.finished_at,
    )
