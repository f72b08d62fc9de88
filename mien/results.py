"""Results within a job: pages that follow the result sequence, and the summary."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.jobs import Job
from mien.paging import Page, decode_cursor, encode_cursor
from mien.paths import exact_name
from mien.schema import OUTCOMES, chunks, faces, images

MAX_LIMIT = 1000
HISTOGRAM_BINS = 20


def results_page(
    db: Database,
    job: Job,
    *,
    after: str | None = None,
    limit: int = 100,
    emotion: str | None = None,
    outcome: str | None = None,
    min_confidence: float | None = None,
    max_confidence: float | None = None,
    prefix: str | None = None,
) -> Page[dict[str, Any]]:
    """Images with their faces, in the order in which they were committed.

    ``next`` is always given: whoever follows a running job goes on from there, misses nothing and sees nothing twice
    (a retried image comes again, later; the later row replaces the earlier). The filters on faces (emotion, confidence)
    keep an image when one of its faces meets all of them.

    Raises:
        InvalidRequestError: ``bad_cursor``, ``cursor_of_another_job``.
    """
    sequence = sa.tuple_(chunks.c.commit_number, images.c.position)
    statement = (
        sa.select(images, chunks.c.commit_number)
        .join(chunks, chunks.c.id == images.c.chunk_id)
        .where(chunks.c.job_id == job.id, chunks.c.commit_number.is_not(None))
        .order_by(chunks.c.commit_number, images.c.position)
        .limit(limit + 1)
    )
    if after is not None:
        commit, position = decode_cursor(after, job.public_id, 2)
        # the first condition lets the index on (job, commit number) start at the right place
        statement = statement.where(chunks.c.commit_number >= commit, sequence > sa.tuple_(commit, position))
    if outcome is not None:
        statement = statement.where(images.c.outcome == outcome)
    if prefix:
        low = prefix.encode("utf-8", "surrogateescape")
        statement = statement.where(images.c.path >= low)
        if (high := _after_prefix(low)) is not None:
            statement = statement.where(images.c.path < high)
    if (wanted := _face_filter(emotion, min_confidence, max_confidence)) is not None:
        statement = statement.where(sa.exists().where(faces.c.image_id == images.c.id, wanted))
    with db.read() as connection:
        rows = connection.execute(statement).all()
        shown = rows[:limit]
        boxes = faces_of(connection, [row.id for row in shown])
    last = shown[-1] if shown else None
    return Page(
        items=[_as_item(row, boxes.get(row.id, [])) for row in shown],
        next=encode_cursor(job.public_id, last.commit_number, last.position) if last else after,
        has_more=len(rows) > limit,
    )


def faces_of(connection: sa.Connection, image_ids: list[int]) -> dict[int, list[sa.Row[Any]]]:
    """The faces of these images, in their order."""
    found: dict[int, list[sa.Row[Any]]] = {}
    if image_ids:
        statement = sa.select(faces).where(faces.c.image_id.in_(image_ids)).order_by(faces.c.image_id, faces.c.number)
        for row in connection.execute(statement):
            found.setdefault(row.image_id, []).append(row)
    return found


def summary(db: Database, job: Job) -> dict[str, Any]:
    """Faces per label, a histogram of confidence, outcomes, errors by code, and seconds per stage."""
    # a cast rounds on PostgreSQL and cuts on SQLite
    scaled = faces.c.confidence * HISTOGRAM_BINS
    bin_number = sa.cast(scaled if db.is_sqlite else sa.func.floor(scaled), sa.Integer)
    in_job = faces.c.job_id == job.id
    failed = sa.and_(images.c.job_id == job.id, images.c.outcome == "failed")
    with db.read() as connection:
        by_label = _counted(connection, faces.c.emotion, in_job)
        bins = _counted(connection, bin_number, in_job)
        errors = _counted(connection, images.c.error_code, failed)
    histogram = [0] * HISTOGRAM_BINS
    for number, count in bins.items():
        histogram[min(max(int(number), 0), HISTOGRAM_BINS - 1)] += count
    return {
        "faces": {label: int(by_label.get(label, 0)) for label in job.labels},
        "confidence_histogram": histogram,
        "outcomes": {name: job.counts[name] for name in OUTCOMES},
        "errors": {str(code): int(count) for code, count in sorted(errors.items())},
        "stage_seconds": job.stage_seconds,
    }


def _counted(connection: sa.Connection, key: sa.ColumnElement[Any], where: sa.ColumnElement[bool]) -> dict[Any, int]:
    rows = connection.execute(sa.select(key.label("key"), sa.func.count().label("number")).where(where).group_by(key))
    return {row.key: row.number for row in rows}


def _face_filter(
    emotion: str | None, min_confidence: float | None, max_confidence: float | None
) -> sa.ColumnElement[bool] | None:
    parts: list[sa.ColumnElement[bool]] = []
    if emotion is not None:
        parts.append(faces.c.emotion == emotion)
    if min_confidence is not None:
        parts.append(faces.c.confidence >= min_confidence)
    if max_confidence is not None:
        parts.append(faces.c.confidence <= max_confidence)
    return sa.and_(*parts) if parts else None


def _after_prefix(prefix: bytes) -> bytes | None:
    """The smallest byte string above every one that begins with ``prefix``."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _as_item(row: sa.Row[Any], boxes: list[sa.Row[Any]]) -> dict[str, Any]:
    return {
        "file": exact_name(row.path),
        "outcome": row.outcome,
        "width": row.width,
        "height": row.height,
        "bytes": row.bytes,
        "format": row.format,
        "sha256": None if row.sha256 is None else row.sha256.hex(),
        "cached": row.cached,
        "error": None if row.error_code is None else {"code": row.error_code, "detail": row.error},
        "faces": [face_item(face) for face in boxes],
        "sequence": [row.commit_number, row.position],
    }


def face_item(face: sa.Row[Any]) -> dict[str, Any]:
    """One face as every answer of the API gives it."""
    return {
        "face": face.number,
        "x": face.x,
        "y": face.y,
        "width": face.width,
        "height": face.height,
        "score": face.score,
        "emotion": face.emotion,
        "confidence": face.confidence,
        "probabilities": face.probabilities,
    }
