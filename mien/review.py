"""Reviews as the outside sees them: people's answers about a job's faces, beside the model's and never over them.

Two modes that are never mixed. *check* measures: a random sample, the model's answer hidden until the rater has given
one, figures with intervals. *mend* corrects: the least certain faces first, and no figures, because such faces are the
model's worst.
"""

from __future__ import annotations

import datetime as dt
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.errors import ConflictError, InvalidRequestError, NotFoundError
from mien.jobs import Job, get_job
from mien.ledger.review import add_check, open_mend
from mien.sampling import draw_sample
from mien.schema import corrections, jobs, review_faces, reviews

DEFAULT_SIZE = 200
MAX_SIZE = 10_000
MAX_RATER = 80


@dataclass(frozen=True)
class Review:
    """A review of one job."""

    id: int
    public_id: str
    job: Job
    mode: str
    seed: int | None
    faces: int | None
    """Faces in the job when the sample was drawn."""
    strata: list[dict[str, Any]]
    created_at: dt.datetime
    left: int | None
    """Drawn faces that are still there (check)."""
    raters: list[dict[str, Any]]
    """Each rater's name, answers, and how many of those say that no label could be decided on."""

    @property
    def drawn(self) -> int | None:
        """Faces that were drawn (check)."""
        return sum(stratum["drawn"] for stratum in self.strata) if self.mode == "check" else None


def start_check(
    db: Database, owner: str, public_id: str, *, size: int = DEFAULT_SIZE, seed: int | None = None
) -> Review:
    """Draw a random sample of a job that has ended.

    Raises:
        NotFoundError: ``unknown_job``.
        ConflictError: ``job_not_finished``; ``nothing_to_review``.
    """
    job = get_job(db, owner, public_id)
    if not job.complete:
        raise ConflictError(
            f"The job is {job.status}: a sample of a job that has not ended would leave out what comes. Wait for its "
            "end; mode mend works now.",
            code="job_not_finished",
        )
    if job.counts["faces"] == 0:
        raise ConflictError("The job holds no face that could be reviewed.", code="nothing_to_review")
    seed = secrets.randbits(48) if seed is None else seed
    with db.read() as connection:
        sample = draw_sample(connection, job.id, job.labels, size, seed)
    return get_review(db, owner, add_check(db, owner, job.id, sample, seed))


def start_mend(db: Database, owner: str, public_id: str) -> Review:
    """The job's review in mode mend, made when it is asked for the first time.

    Raises:
        NotFoundError: ``unknown_job``.
        ConflictError: ``job_is_draft``.
    """
    job = get_job(db, owner, public_id)
    if job.status == "draft":
        raise ConflictError("The job was not submitted yet; there is nothing to review.", code="job_is_draft")
    return get_review(db, owner, open_mend(db, owner, job.id))


def get_review(db: Database, owner: str, public_id: str) -> Review:
    """The review of this owner.

    Raises:
        NotFoundError: ``unknown_review``.
    """
    with db.read() as connection:
        row = connection.execute(
            sa.select(reviews, jobs.c.public_id.label("job"))
            .join(jobs, jobs.c.id == reviews.c.job_id)
            .where(reviews.c.public_id == public_id, jobs.c.owner == owner, jobs.c.status != "deleting")
        ).one_or_none()
        facts = {} if row is None else _facts(connection, [row.id])
    if row is None:
        raise unknown_review(public_id)
    return _as_review(row, get_job(db, owner, row.job), facts)


def list_reviews(db: Database, job: Job) -> list[Review]:
    """The job's reviews, newest first."""
    with db.read() as connection:
        rows = connection.execute(
            sa.select(reviews).where(reviews.c.job_id == job.id).order_by(reviews.c.id.desc())
        ).all()  # fmt: skip
        facts = _facts(connection, [row.id for row in rows])
    return [_as_review(row, job, facts) for row in rows]


def unknown_review(public_id: str) -> NotFoundError:
    """There is no such review of this owner."""
    return NotFoundError(
        f"There is no review {public_id!r}; it went with its job, or never was. /api/v1/jobs/ID/reviews lists them.",
        code="unknown_review",
    )


def checked_rater(name: str) -> str:
    """A rater's name as it is kept: without spaces around it, in Unicode's composed form.

    Raises:
        InvalidRequestError: it is empty, too long, or holds what cannot be seen.
    """
    tidy = unicodedata.normalize("NFC", name).strip()
    if not tidy or len(tidy) > MAX_RATER or not tidy.isprintable():
        raise InvalidRequestError(
            f"`rater`: give a name of 1 to {MAX_RATER} visible characters, the same one each time.", field="rater"
        )
    return tidy


def _facts(connection: sa.Connection, ids: list[int]) -> dict[str, dict[int, Any]]:
    counted = connection.execute(
        sa.select(review_faces.c.review_id, sa.func.count().label("faces"))
        .where(review_faces.c.review_id.in_(ids))
        .group_by(review_faces.c.review_id)
    )
    left = {row.review_id: row.faces for row in counted}
    raters: dict[int, list[dict[str, Any]]] = {}
    for row in connection.execute(
        sa.select(
            corrections.c.review_id,
            corrections.c.rater,
            sa.func.count().label("answers"),
            (sa.func.count() - sa.func.count(corrections.c.emotion)).label("undecidable"),
            sa.func.max(corrections.c.created_at, type_=corrections.c.created_at.type).label("last"),
        )
        .where(corrections.c.review_id.in_(ids))
        .group_by(corrections.c.review_id, corrections.c.rater)
        .order_by(corrections.c.rater)
    ):
        raters.setdefault(row.review_id, []).append(
            {"rater": row.rater, "answers": row.answers, "undecidable": row.undecidable, "last_answer_at": row.last}
        )
    return {"left": left, "raters": raters}


def _as_review(row: sa.Row[Any], job: Job, facts: dict[str, dict[int, Any]]) -> Review:
    return Review(
        id=row.id,
        public_id=row.public_id,
        job=job,
        mode=row.mode,
        seed=row.seed,
        faces=row.faces,
        strata=row.strata,
        created_at=row.created_at,
        left=facts["left"].get(row.id, 0) if row.mode == "check" else None,
        raters=facts["raters"].get(row.id, []),
    )
