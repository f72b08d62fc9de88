"""Answering: what a rater says about a face of a review, and taking it back."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.erased_names import paths_named
from mien.errors import ConflictError, NotFoundError
from mien.ledger.review import Answer, take_back, unknown_face, unknown_label, write_answer
from mien.review import Review, checked_rater
from mien.review_faces import answered_face
from mien.schema import images


def answer(
    db: Database,
    review: Review,
    *,
    rater: str,
    file: str,
    face: int,
    emotion: str | None,
    note: str | None = None,
) -> dict[str, Any]:
    """Keep a rater's answer and give the face with the model's. ``emotion`` None: cannot be decided.

    In mode check the first answer counts in the figures; a later one of the same rater is kept beside it.

    Raises:
        NotFoundError: ``unknown_face``.
        UnprocessableError: ``unknown_label``.
        InvalidRequestError: the rater's name.
    """
    given = Answer(review.id, _image(db, review, file), face, checked_rater(rater), emotion, note)
    return answer_face(db, review, given)


def answer_face(db: Database, review: Review, given: Answer) -> dict[str, Any]:
    """:func:`answer` about a face named by its image's number in the ledger, as the pages do."""
    if given.emotion is not None and given.emotion not in review.job.labels:
        raise unknown_label(given.emotion, list(review.job.labels))
    write_answer(db, review.job.owner, review.mode, review.job.id, given)
    return answered_face(db, review, given)


def undo(db: Database, review: Review, *, rater: str, file: str, face: int) -> None:
    """Take back an answer given in mode mend; the face waits again.

    Raises:
        NotFoundError: ``unknown_face``: this rater has not answered it.
        ConflictError: ``answer_counts``: in mode check the first answer counts.
    """
    undo_face(db, review, Answer(review.id, _image(db, review, file), face, checked_rater(rater), None))


def undo_face(db: Database, review: Review, given: Answer) -> None:
    """:func:`undo` of a face named by its image's number in the ledger, as the pages do."""
    if review.mode == "check":
        raise ConflictError(
            "In mode check the first answer counts, since the model's is shown after it. Give another answer: it is "
            "kept beside the first.",
            code="answer_counts",
        )
    if not take_back(db, given):
        raise unknown_face("This rater has not answered that face.")


def _image(db: Database, review: Review, file: str) -> int:
    with db.read() as connection:
        paths = paths_named(connection, review.job.id, [file])
        found = connection.execute(
            sa.select(images.c.id).where(images.c.job_id == review.job.id, images.c.path.in_(paths))
        ).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"The job holds no image {file!r}; it was deleted, or never there.",
                            code="unknown_image", field="file")  # fmt: skip
    return int(found)
