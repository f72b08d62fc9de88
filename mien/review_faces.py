"""The faces of a review as a rater may see them: pages of those that wait, and of those answered."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa

from mien.database import Database
from mien.errors import InvalidRequestError
from mien.jobs import Job
from mien.ledger.review import Answer, unknown_face
from mien.ledger.tallies import HISTOGRAM_BINS, sum_counts
from mien.paging import Page, decode_cursor, encode_cursor
from mien.paths import exact_name
from mien.review import Review, checked_rater
from mien.schema import chunks, corrections, faces, images, review_faces, tallies

State = Literal["open", "answered", "all"]


def faces_page(
    db: Database, review: Review, rater: str, *, state: State = "open", after: str | None = None, limit: int = 20
) -> Page[dict[str, Any]]:
    """Faces of a review as this rater may see them.

    ``open``: those that wait for an answer (check: this rater's, in the drawn order; mend: anybody's, the least certain
    first). ``answered``: those that this rater has answered, the last first. ``all``: the whole sample (check).

    In mode check ``model`` is None until the rater has answered the face.

    Raises:
        InvalidRequestError: ``bad_cursor``; ``all`` in mode mend.
    """
    rater = checked_rater(rater)
    if state == "answered":
        return _answered(db, review, rater, after, limit)
    if review.mode == "check":
        return _drawn(db, review, rater, after, limit, only_open=state == "open")
    if state == "all":
        raise InvalidRequestError("`state`: mode mend lists `open` or `answered`.", field="state")
    return _least_certain(db, review, after, limit)


_FACE = (
    faces, images.c.path, images.c.width.label("image_width"), images.c.height.label("image_height"),
    images.c.sha256,
)  # fmt: skip


def _drawn(
    db: Database, review: Review, rater: str, after: str | None, limit: int, *, only_open: bool
) -> Page[dict[str, Any]]:
    start = -1 if after is None else decode_cursor(after, f"{review.public_id}/drawn", 1)[0]
    mine = sa.and_(
        corrections.c.review_id == review.id,
        corrections.c.rater == rater,
        corrections.c.image_id == review_faces.c.image_id,
        corrections.c.face_number == review_faces.c.face_number,
    )
    statement = (
        sa.select(review_faces.c.place, *_FACE, *_ANSWER)
        .join(
            faces,
            sa.and_(faces.c.image_id == review_faces.c.image_id, faces.c.number == review_faces.c.face_number),
        )
        .join(images, images.c.id == faces.c.image_id)
        .outerjoin(corrections, mine)
        .where(review_faces.c.review_id == review.id, review_faces.c.place > start)
        .order_by(review_faces.c.place)
        .limit(limit + 1)
    )
    if only_open:
        statement = statement.where(corrections.c.id.is_(None))
    with db.read() as connection:
        rows = connection.execute(statement).all()
    shown = rows[:limit]
    return Page(
        [_as_face(row, review, row.place) for row in shown],
        encode_cursor(f"{review.public_id}/drawn", shown[-1].place) if shown else after,
        len(rows) > limit,
    )


def _least_certain(db: Database, review: Review, after: str | None, limit: int) -> Page[dict[str, Any]]:
    """By confidence. The histogram says up to which confidence enough faces lie, so that an index finds them."""
    scope = f"{review.public_id}/open"
    start = (-1.0, 0, 0)
    if after is not None:
        millionths, image_id, number = decode_cursor(after, scope, 3)
        start = (millionths / 1e6, image_id, number)
    answered = (
        sa.select(corrections.c.id)
        .where(
            corrections.c.review_id == review.id,
            corrections.c.image_id == faces.c.image_id,
            corrections.c.face_number == faces.c.number,
        )
        .exists()
    )
    inside = sa.select(chunks.c.id).where(chunks.c.job_id == review.job.id)
    statement = (
        sa.select(*_FACE)
        .join(images, images.c.id == faces.c.image_id)
        .where(faces.c.chunk_id.in_(inside), ~answered, faces.c.confidence >= start[0])
        .order_by(faces.c.confidence, faces.c.image_id, faces.c.number)
        .limit(limit + 1)
    )
    if after is not None:
        statement = statement.where(
            sa.tuple_(faces.c.confidence, faces.c.image_id, faces.c.number) > sa.tuple_(*start)
        )  # fmt: skip
    with db.read() as connection:
        histogram = _histogram(connection, review.job)
        rows: list[sa.Row[Any]] = []
        first, wanted = max(0, int(start[0] * HISTOGRAM_BINS)), limit + 1
        while len(rows) <= limit:
            edge = _edge(histogram, first, wanted)
            rows = list(connection.execute(statement.where(faces.c.confidence < edge)))
            if edge > 1:
                break
            wanted *= 4  # many of them are answered by now
    shown = rows[:limit]
    last = shown[-1] if shown else None
    return Page(
        [_as_face(row, review, None) for row in shown],
        encode_cursor(scope, round(last.confidence * 1e6), last.image_id, last.number) if last else after,
        len(rows) > limit,
    )


def _edge(histogram: list[int], first: int, wanted: int) -> float:
    """The confidence below which at least ``wanted`` faces lie, counted from bin ``first`` on; above 1 for all."""
    found = 0
    for place in range(first, HISTOGRAM_BINS):
        found += histogram[place]
        if found >= wanted and place > first:  # some of the first bin lie before the page
            return (place + 1) / HISTOGRAM_BINS if place + 1 < HISTOGRAM_BINS else 2.0
    return 2.0


def _histogram(connection: sa.Connection, job: Job) -> list[int]:
    counts = connection.execute(sa.select(tallies.c.counts).where(tallies.c.job_id == job.id)).scalars()
    return sum_counts(counts, job.labels)[1]


_ANSWER = (
    corrections.c.rater, corrections.c.emotion.label("answer"), corrections.c.first_emotion, corrections.c.changes,
    corrections.c.note, corrections.c.created_at.label("answered_at"), corrections.c.id.label("answer_id"),
)  # fmt: skip


def _answered(db: Database, review: Review, rater: str, after: str | None, limit: int) -> Page[dict[str, Any]]:
    scope = f"{review.public_id}/answered"
    statement = (
        sa.select(review_faces.c.place, *_FACE, *_ANSWER)
        .select_from(corrections)
        .join(
            faces,
            sa.and_(faces.c.image_id == corrections.c.image_id, faces.c.number == corrections.c.face_number),
        )
        .join(images, images.c.id == faces.c.image_id)
        .outerjoin(
            review_faces,
            sa.and_(
                review_faces.c.review_id == corrections.c.review_id,
                review_faces.c.image_id == corrections.c.image_id,
                review_faces.c.face_number == corrections.c.face_number,
            ),
        )
        .where(corrections.c.review_id == review.id, corrections.c.rater == rater)
        .order_by(corrections.c.id.desc())
        .limit(limit + 1)
    )
    if after is not None:
        statement = statement.where(corrections.c.id < decode_cursor(after, scope, 1)[0])
    with db.read() as connection:
        rows = connection.execute(statement).all()
    shown = rows[:limit]
    return Page(
        [_as_face(row, review, row.place) for row in shown],
        encode_cursor(scope, shown[-1].answer_id) if shown else after,
        len(rows) > limit,
    )


def _as_face(row: sa.Row[Any], review: Review, place: int | None) -> dict[str, Any]:
    facts = row._mapping
    answer = None
    if facts.get("answer_id") is not None:
        answer = {
            "rater": row.rater,
            "emotion": row.answer,
            "first_emotion": row.first_emotion,
            "changes": row.changes,
            "note": row.note,
            "answered_at": row.answered_at,
        }
    hidden = review.mode == "check" and answer is None
    return {
        "place": place,
        "image_id": row.image_id,
        "file": exact_name(row.path),
        "face": row.number,
        "x": row.x,
        "y": row.y,
        "width": row.width,
        "height": row.height,
        "image_width": row.image_width,
        "image_height": row.image_height,
        "answer": answer,
        "model": None
        if hidden
        else {"emotion": row.emotion, "confidence": row.confidence, "probabilities": row.probabilities},
    }


def answered_face(db: Database, review: Review, given: Answer) -> dict[str, Any]:
    """The face of an answer that was just given, with the model's answer.

    Raises:
        NotFoundError: ``unknown_face``: it was deleted.
    """
    of_face = sa.and_(faces.c.image_id == corrections.c.image_id, faces.c.number == corrections.c.face_number)
    drawn = sa.and_(
        review_faces.c.review_id == corrections.c.review_id,
        review_faces.c.image_id == corrections.c.image_id,
        review_faces.c.face_number == corrections.c.face_number,
    )
    with db.read() as connection:
        row = connection.execute(
            sa.select(review_faces.c.place, *_FACE, *_ANSWER)
            .select_from(corrections)
            .join(faces, of_face)
            .join(images, images.c.id == faces.c.image_id)
            .outerjoin(review_faces, drawn)
            .where(
                corrections.c.review_id == given.review_id,
                corrections.c.image_id == given.image_id,
                corrections.c.face_number == given.face_number,
                corrections.c.rater == given.rater,
            )
        ).one_or_none()
    if row is None:
        raise unknown_face()
    return _as_face(row, review, row.place)
