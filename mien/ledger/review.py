"""Reviews are written here: samples drawn, raters' answers, and answers taken back.

Every answer holds its chunk by a share lock while it is written, so that a deletion either sees it or has come before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mien.database import Database
from mien.errors import ConflictError, NotFoundError, UnprocessableError
from mien.ledger.submit import new_public_id
from mien.sampling import Sample
from mien.schema import chunks, corrections, faces, images, jobs, review_faces, reviews


@dataclass(frozen=True)
class Answer:
    """A rater's answer about one face of a review. ``emotion`` None: the rater cannot decide."""

    review_id: int
    image_id: int
    face_number: int
    rater: str
    emotion: str | None
    note: str | None = None


def add_check(db: Database, owner: str, job_id: int, sample: Sample, seed: int) -> str:
    """Write a review with its drawn sample; gives its public id. Faces deleted since the draw are left out.

    Raises:
        NotFoundError: the job is being deleted.
        ConflictError: ``nothing_to_review``, none of the faces is left.
    """
    strata = sorted(sample.strata)
    number_of = {stratum: number for number, stratum in enumerate(strata)}
    with db.write() as connection:
        now = db.now(connection)
        _hold_chunks(connection, {face.chunk_id for face in sample.faces})
        _check_job(connection, job_id)
        ids = {face.image_id for face in sample.faces}
        there = set(connection.execute(sa.select(images.c.id).where(images.c.id.in_(ids))).scalars())
        drawn = [face for face in sample.faces if face.image_id in there]
        if not drawn:
            raise ConflictError("The job holds no face that could be reviewed.", code="nothing_to_review")
        counts = [sum(face.stratum == stratum for face in drawn) for stratum in strata]
        review_id, public_id = _new_review(
            connection, job_id, owner, "check", now, seed=seed, faces=sum(sample.strata.values()),
            strata=[
                {"label": s.label, "low": s.low, "high": s.high, "faces": sample.strata[s], "drawn": count}
                for s, count in zip(strata, counts, strict=True)
            ],
        )  # fmt: skip
        connection.execute(
            review_faces.insert(),
            [
                {
                    "review_id": review_id,
                    "place": place,
                    "image_id": face.image_id,
                    "face_number": face.face_number,
                    "stratum": number_of[face.stratum],
                }
                for place, face in enumerate(drawn)
            ],
        )
    return public_id


def open_mend(db: Database, owner: str, job_id: int) -> str:
    """The job's review in mode mend, made if there is none; gives its public id.

    Raises:
        NotFoundError: the job is being deleted.
    """
    with db.write() as connection:
        now = db.now(connection)
        # one after another, so that two who ask at once get the same
        connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id).with_for_update(key_share=True))
        _check_job(connection, job_id)
        found = connection.execute(
            sa.select(reviews.c.public_id).where(reviews.c.job_id == job_id, reviews.c.mode == "mend")
        ).scalar_one_or_none()
        return found or _new_review(connection, job_id, owner, "mend", now, strata=[])[1]


def write_answer(db: Database, owner: str, mode: str, job_id: int, given: Answer) -> None:
    """Keep an answer; one of the same rater about the same face is replaced, and its first answer stays beside it.

    Raises:
        NotFoundError: ``unknown_face``: the face was deleted, or is not in the sample.
    """
    with db.write() as connection:
        now = db.now(connection)
        _hold_face(connection, mode, job_id, given)
        mine = _mine(given)
        known = connection.execute(sa.select(corrections).where(mine).with_for_update()).one_or_none()
        if known is None:
            try:
                with connection.begin_nested():
                    connection.execute(
                        corrections.insert().values(
                            review_id=given.review_id,
                            image_id=given.image_id,
                            face_number=given.face_number,
                            owner=owner,
                            mode=mode,
                            rater=given.rater,
                            emotion=given.emotion,
                            first_emotion=given.emotion,
                            note=given.note,
                            created_at=now,
                        )
                    )
                return
            except IntegrityError:  # the same rater at the same moment, in another window
                known = connection.execute(sa.select(corrections).where(mine).with_for_update()).one()
        changed: dict[str, Any] = {} if given.note is None else {"note": given.note}
        if known.emotion != given.emotion:
            changed |= {"emotion": given.emotion, "changes": corrections.c.changes + 1, "changed_at": now}
        if changed:
            connection.execute(corrections.update().where(corrections.c.id == known.id).values(changed))


def take_back(db: Database, given: Answer) -> bool:
    """Delete an answer given in mode mend; gives whether there was one."""
    with db.write() as connection:
        return connection.execute(corrections.delete().where(_mine(given))).rowcount == 1


def _mine(given: Answer) -> sa.ColumnElement[bool]:
    return sa.and_(
        corrections.c.review_id == given.review_id,
        corrections.c.image_id == given.image_id,
        corrections.c.face_number == given.face_number,
        corrections.c.rater == given.rater,
    )


def _hold_face(connection: sa.Connection, mode: str, job_id: int, given: Answer) -> None:
    """Nobody deletes the face until the end of this transaction."""
    chunk_id = connection.execute(
        sa.select(images.c.chunk_id).where(images.c.id == given.image_id, images.c.job_id == job_id)
    ).scalar_one_or_none()  # fmt: skip
    if chunk_id is not None:
        _hold_chunks(connection, {chunk_id})
    face = sa.select(faces.c.number).where(
        faces.c.image_id == given.image_id, faces.c.number == given.face_number, faces.c.chunk_id == chunk_id
    )
    if connection.execute(face).first() is None:
        raise unknown_face()
    if mode == "check":
        drawn = sa.select(review_faces.c.place).where(
            review_faces.c.review_id == given.review_id,
            review_faces.c.image_id == given.image_id,
            review_faces.c.face_number == given.face_number,
        )
        if connection.execute(drawn).first() is None:
            raise unknown_face("This face is not in the sample that was drawn; rate those that `/faces` lists.")


def _hold_chunks(connection: sa.Connection, chunk_ids: set[int]) -> None:
    # erasing and purging lock chunks for update, which this keeps out; by id, as everybody does
    connection.execute(
        sa.select(chunks.c.id)
        .where(chunks.c.id.in_(sorted(chunk_ids)))
        .order_by(chunks.c.id)
        .with_for_update(read=True)
    ).all()  # fmt: skip


def _check_job(connection: sa.Connection, job_id: int) -> None:
    status = connection.execute(
        sa.select(jobs.c.status).where(jobs.c.id == job_id).with_for_update(read=True)
    ).scalar_one_or_none()  # fmt: skip
    if status is None or status == "deleting":
        raise NotFoundError("The job is being deleted.", code="unknown_job")


def _new_review(
    connection: sa.Connection, job_id: int, owner: str, mode: str, now: Any, **facts: Any
) -> tuple[int, str]:
    public_id = new_public_id()
    values: Mapping[str, Any] = {
        "public_id": public_id, "job_id": job_id, "owner": owner, "mode": mode, "created_at": now, **facts,
    }  # fmt: skip
    review_id = connection.execute(reviews.insert().values(values).returning(reviews.c.id)).scalar_one()
    return review_id, public_id


def unknown_face(detail: str = "There is no such face in the job any more; it was deleted meanwhile.") -> NotFoundError:
    """There is no such face."""
    return NotFoundError(detail, code="unknown_face", field="face")


def unknown_label(label: str, labels: list[str]) -> UnprocessableError:
    """The model of the job has no such label."""
    return UnprocessableError(
        f"`emotion`: this job's model has no label {label!r}; it has {', '.join(labels)}.",
        code="unknown_label",
        field="emotion",
    )
