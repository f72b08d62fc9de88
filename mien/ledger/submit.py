"""Submission: one job row, idempotency key included, in one transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mien.database import Database
from mien.errors import UnprocessableError
from mien.ledger.drafts import Arrived, insert_uploads
from mien.ledger.metadata import write_metadata
from mien.ledger.usage import add_usage
from mien.schema import jobs


@dataclass(frozen=True)
class NewJob:
    """Everything a job row holds from the start."""

    owner: str
    source_type: str
    source_path: bytes | None
    source_text: str | None
    source_identity: str | None
    recursive: bool
    include: list[str]
    exclude: list[str]
    model: str
    model_revision: str
    labels: list[str]
    precision: str
    faces_mode: str
    detect_size: int
    min_face_score: float
    min_face: int
    fingerprint: str
    provenance: dict[str, Any]
    request_hash: str
    metadata: dict[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    keep_images_s: int | None = None
    keep_results_s: int | None = None


def new_public_id() -> str:
    """A job's public id: 11 hex digits of the time in milliseconds, then 40 random bits, so that ids sort by age."""
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(5)}"


def submit(
    db: Database,
    job: NewJob,
    *,
    public_id: str | None = None,
    draft: bool = False,
    uploaded: Sequence[Arrived] = (),
) -> tuple[str, bool]:
    """Write the job as ``queued`` and ask control to expand it. Gives (public id, whether it is new).

    Args:
        public_id: the id it is to have, where something stands under it already.
        draft: it takes uploads first, and waits until it is submitted.
        uploaded: the files that came with it, each path once.

    Raises:
        UnprocessableError: ``idempotency_key_reused``, the key stands for another request.
    """
    key = job.idempotency_key
    if key is not None and (earlier := earlier_job(db, job.owner, key, job.request_hash)):
        return earlier, False
    public_id = public_id or new_public_id()
    try:
        with db.write() as connection:
            now = db.now(connection)
            state = (
                {"status": "draft", "draft_at": now}
                if draft
                else {"status": "queued", "queued_at": now, "request": "expand"}
            )
            job_id = connection.execute(
                jobs.insert()
                .values(
                    public_id=public_id,
                    created_at=now,
                    upload_files=len(uploaded),
                    upload_bytes=sum(file.size for file in uploaded),
                    **state,
                    **{name: getattr(job, name) for name in NewJob.__dataclass_fields__},
                )
                .returning(jobs.c.id)
            ).scalar_one()
            insert_uploads(connection, job_id, uploaded, now)
            write_metadata(connection, job_id, job.metadata)
            if uploaded:
                add_usage(connection, job.owner, now, size=sum(file.size for file in uploaded))
    except IntegrityError:
        # another request with the same key won; the unique constraint let exactly one through
        earlier = earlier_job(db, job.owner, key, job.request_hash) if key is not None else None
        if earlier is None:
            raise
        return earlier, False
    return public_id, True


def earlier_job(db: Database, owner: str, idempotency_key: str, request_hash: str) -> str | None:
    """The public id of the job that this key stands for already, or None.

    Raises:
        UnprocessableError: ``idempotency_key_reused``, it stands for another request.
    """
    with db.read() as connection:
        row = connection.execute(
            sa.select(jobs.c.public_id, jobs.c.request_hash).where(
                jobs.c.owner == owner, jobs.c.idempotency_key == idempotency_key
            )
        ).one_or_none()
    if row is None:
        return None
    if row.request_hash != request_hash:
        raise UnprocessableError(
            "This Idempotency-Key was used before with a different request; use a new key for a new job.",
            code="idempotency_key_reused",
            field="Idempotency-Key",
        )
    return str(row.public_id)
