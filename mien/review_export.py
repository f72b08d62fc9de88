"""People's answers out: one row per face and rater, with mode and rater, beside what the model said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from mien.csv_text import CsvText, cell_number, cell_text
from mien.database import Database
from mien.jobs import Job
from mien.paging import Page, decode_cursor, encode_cursor
from mien.paths import exact_name
from mien.schema import corrections, faces, images, review_faces, reviews

PAGE = 1000
COLUMNS = (
    "file", "face", "x", "y", "width", "height", "emotion", "confidence", "review", "mode", "rater", "answer",
    "undecidable", "first_answer", "changes", "stands_for", "note", "answered_at",
)  # fmt: skip


def answers_page(
    db: Database, job: Job, *, review: str | None = None, mode: str | None = None, rater: str | None = None,
    after: str | None = None, limit: int = 100,
) -> Page[dict[str, Any]]:  # fmt: skip
    """The answers about a job's faces, in the order in which they were first given.

    ``stands_for``: how many faces of the job the face stands for, as it was drawn (check); None in mode mend.

    Raises:
        InvalidRequestError: ``bad_cursor``, ``cursor_of_another_job``.
    """
    scope = f"{job.public_id}/answers"
    statement = (
        sa.select(
            corrections, reviews.c.public_id.label("review"), reviews.c.strata, review_faces.c.stratum, images.c.path,
            faces.c.x, faces.c.y, faces.c.width, faces.c.height, faces.c.emotion.label("model"), faces.c.confidence,
        )
        .join(reviews, reviews.c.id == corrections.c.review_id)
        .join(images, images.c.id == corrections.c.image_id)
        .join(
            faces,
            sa.and_(faces.c.image_id == corrections.c.image_id, faces.c.number == corrections.c.face_number),
        )
        .outerjoin(
            review_faces,
            sa.and_(
                review_faces.c.review_id == corrections.c.review_id,
                review_faces.c.image_id == corrections.c.image_id,
                review_faces.c.face_number == corrections.c.face_number,
            ),
        )
        .where(reviews.c.job_id == job.id)
        .order_by(corrections.c.id)
        .limit(limit + 1)
    )  # fmt: skip
    for column, value in ((reviews.c.public_id, review), (corrections.c.mode, mode), (corrections.c.rater, rater)):
        if value is not None:
            statement = statement.where(column == value)
    if after is not None:
        statement = statement.where(corrections.c.id > decode_cursor(after, scope, 1)[0])
    with db.read() as connection:
        rows = connection.execute(statement).all()
    shown = rows[:limit]
    return Page(
        [_as_answer(row) for row in shown],
        encode_cursor(scope, shown[-1].id) if shown else after,
        len(rows) > limit,
    )


def answers_csv(db: Database, job: Job, *, spreadsheet: bool = False, **wanted: str | None) -> Iterator[bytes]:
    """One row per answer, UTF-8."""
    text = CsvText()
    text.add([COLUMNS])
    for page in _pages(db, job, wanted):
        for item in page:
            row = [_cell(item[name], spreadsheet) for name in COLUMNS]
            text.add([row], has_returns="\r" in item["file"])
        yield text.take()
    yield text.take()


def answers_jsonl(db: Database, job: Job, **wanted: str | None) -> Iterator[bytes]:
    """One JSON object per answer and line."""
    for page in _pages(db, job, wanted):
        yield b"".join(
            json.dumps(item, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n" for item in page
        )


def _pages(db: Database, job: Job, wanted: dict[str, str | None]) -> Iterator[list[dict[str, Any]]]:
    after = None
    while True:
        page = answers_page(db, job, after=after, limit=PAGE, **wanted)
        if page.items:
            yield page.items
        if not page.has_more:
            return
        after = page.next


def _as_answer(row: sa.Row[Any]) -> dict[str, Any]:
    stands_for = None
    if row.stratum is not None:
        stratum = row.strata[row.stratum]
        stands_for = round(stratum["faces"] / stratum["drawn"], 6)
    return {
        "file": exact_name(row.path),
        "face": row.face_number,
        "x": row.x,
        "y": row.y,
        "width": row.width,
        "height": row.height,
        "emotion": row.model,
        "confidence": row.confidence,
        "review": row.review,
        "mode": row.mode,
        "rater": row.rater,
        "answer": row.emotion,
        "undecidable": row.emotion is None,
        "first_answer": row.first_emotion,
        "changes": row.changes,
        "stands_for": stands_for,
        "note": row.note,
        "answered_at": (row.changed_at or row.created_at).isoformat().replace("+00:00", "Z"),
    }


def _cell(value: Any, spreadsheet: bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return cell_number(value) if value is None or isinstance(value, int | float) else cell_text(value, spreadsheet)
