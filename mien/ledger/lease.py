"""Leases: a worker takes a chunk with a fencing token and a deadline in database time, renews it, or hands it back."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.ledger.sizing import fair_size, resize
from mien.schema import chunks, images, jobs, uploads

CANDIDATE_JOBS = 16


@dataclass(frozen=True)
class Kind:
    """What decides how long an image takes: jobs of one kind go at one pace."""

    model_revision: str
    precision: str
    faces_mode: str
    detect_size: int


@dataclass(frozen=True)
class Taker:
    """What a worker can do: only jobs that it can serve are leased to it."""

    name: str
    precisions: Collection[str]
    models: Collection[str] | None = None  # revisions that are installed here; None: whatever a job asks for
    loaded_models: Collection[str] = ()
    root_gone: Collection[int] = ()  # jobs whose source folder this worker does not see just now
    wanted: Callable[[Kind], int] | None = None  # images it would like at once; None: chunks as they were written


@dataclass(frozen=True)
class LeasedImage:
    """One image of a chunk that waits for its outcome. ``file``: where it lies, relative to the job's source path.

    Of an object ``etag`` and ``size`` are as they were listed.
    """

    id: int
    position: int
    path: bytes
    file: bytes
    etag: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class ChunkLease:
    """A chunk in a worker's hands, with all that classifying it needs."""

    chunk_id: int
    job_id: int
    public_id: str
    owner: str
    token: str
    suspect: bool
    source_path: bytes
    source_text: str
    source_identity: str
    model: str
    model_revision: str
    labels: tuple[str, ...]
    precision: str
    faces_mode: str
    detect_size: int
    min_face_score: float
    min_face: int
    fingerprint: str
    images: tuple[LeasedImage, ...]

    @property
    def kind(self) -> Kind:
        """What decides its pace."""
        return Kind(self.model_revision, self.precision, self.faces_mode, self.detect_size)


def take_chunk(db: Database, taker: Taker, lease_s: float) -> ChunkLease | None:
    """Lease the next due chunk, or None when there is none this worker can serve.

    Fair shares: the owner with the fewest chunks in work comes first, and of theirs the job with the fewest; then one
    whose model is loaded here, then the one that has waited longest since its last lease. Concurrent takers skip each
    other's rows on PostgreSQL.
    """
    with db.write() as connection:
        now = _unflushed(db, connection)
        for job in _candidates(connection, taker):
            chunk = connection.execute(
                sa.select(chunks.c.id, chunks.c.suspect)
                .where(chunks.c.job_id == job.id, chunks.c.state == "due")
                .order_by(chunks.c.id)
                .limit(1)
                .with_for_update(skip_locked=True, key_share=True)
            ).one_or_none()
            if chunk is None:
                continue
            chunk_id = chunk.id if taker.wanted is None else resize(connection, job.id, chunk.id, _size(job, taker))
            token = secrets.token_hex(16)
            connection.execute(
                chunks.update()
                .where(chunks.c.id == chunk_id)
                .values(
                    state="leased",
                    token=token,
                    lease_owner=taker.name,
                    lease_expires_at=now + dt.timedelta(seconds=lease_s),
                )
            )
            waiting = connection.execute(_waiting(job, chunk_id)).all()
            connection.execute(jobs.update().where(jobs.c.id == job.id).values(last_leased_at=now))
            return _as_lease(job, chunk_id, chunk.suspect, token, waiting)
    return None


def _unflushed(db: Database, connection: sa.Connection) -> dt.datetime:
    """The database's time. PostgreSQL need not wait for its disk at the end of this transaction.

    A lease that a crash of the server forgets is a chunk that is due again: the commit under its token writes nothing.
    Without the wait the job's row is free again at once for the commits of others.
    """
    if not db.is_sqlite:
        connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
    return db.now(connection)


def _size(job: sa.Row[Any], taker: Taker) -> int:
    """Images that the taker gets of this job."""
    if taker.wanted is None:
        raise AssertionError("a taker without a wish was asked for it")
    kind = Kind(job.model_revision, job.precision, job.faces_mode, job.detect_size)
    return fair_size(taker.wanted(kind), job.pending, job.in_work)


def _waiting(job: sa.Row[Any], chunk_id: int) -> sa.Select[Any]:
    """The images of a chunk without an outcome; those of a job with uploads with the names they are stored under."""
    statement = (
        sa.select(images.c.id, images.c.position, images.c.path, images.c.etag, images.c.bytes)
        .where(images.c.chunk_id == chunk_id, images.c.outcome == "pending")
        .order_by(images.c.position)
    )
    if job.source_type != "upload":
        return statement
    return statement.add_columns(uploads.c.stored_name).outerjoin(
        uploads, sa.and_(uploads.c.job_id == images.c.job_id, uploads.c.path == images.c.path)
    )


def _leased(job: sa.Row[Any], image: sa.Row[Any]) -> LeasedImage:
    if job.source_type != "upload":
        return LeasedImage(image.id, image.position, image.path, image.path, image.etag, image.bytes)
    # an upload deleted meanwhile has no name any more, and no file has this one: the image is `missing`
    return LeasedImage(image.id, image.position, image.path, (image.stored_name or "deleted").encode())


def _candidates(connection: sa.Connection, taker: Taker) -> Sequence[sa.Row[Any]]:
    asked = {
        "precisions": list(taker.precisions),
        "loaded": list(taker.loaded_models),
        "root_gone": list(taker.root_gone),
    }
    if taker.models is None:
        return connection.execute(_ANY_MODEL, asked).all()
    return connection.execute(_INSTALLED, {**asked, "models": list(taker.models)}).all()


def _next_jobs(*also: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The jobs to take a chunk of, the one whose turn it is first. Made once: it is asked with every chunk."""
    in_work = (
        sa.select(chunks.c.job_id, sa.func.count().label("number"))
        .where(chunks.c.state == "leased")
        .group_by(chunks.c.job_id)
        .subquery()
    )
    of_owner = (
        sa.select(jobs.c.owner, sa.func.count().label("number"))
        .join(chunks, chunks.c.job_id == jobs.c.id)
        .where(chunks.c.state == "leased")
        .group_by(jobs.c.owner)
        .subquery()
    )
    has_due = sa.exists().where(chunks.c.job_id == jobs.c.id, chunks.c.state == "due")
    return (
        sa.select(jobs, sa.func.coalesce(in_work.c.number, 0).label("in_work"))
        .outerjoin(in_work, in_work.c.job_id == jobs.c.id)
        .outerjoin(of_owner, of_owner.c.owner == jobs.c.owner)
        .where(
            jobs.c.status.in_(("expanding", "running")),
            jobs.c.precision.in_(sa.bindparam("precisions", expanding=True)),
            jobs.c.id.not_in(sa.bindparam("root_gone", expanding=True)),
            has_due,
            *also,
        )
        .order_by(
            sa.func.coalesce(of_owner.c.number, 0),
            sa.func.coalesce(in_work.c.number, 0),
            sa.case((jobs.c.model_revision.in_(sa.bindparam("loaded", expanding=True)), 0), else_=1),
            jobs.c.last_leased_at.asc().nulls_first(),
            jobs.c.id,
        )
        .limit(CANDIDATE_JOBS)
    )


_ANY_MODEL = _next_jobs()
_INSTALLED = _next_jobs(jobs.c.model_revision.in_(sa.bindparam("models", expanding=True)))


def _as_lease(job: sa.Row[Any], chunk_id: int, suspect: bool, token: str, waiting: Sequence[Any]) -> ChunkLease:
    row = job._mapping
    return ChunkLease(
        chunk_id=chunk_id,
        job_id=row["id"],
        public_id=row["public_id"],
        owner=row["owner"],
        token=token,
        suspect=suspect,
        source_path=row["source_path"],
        source_text=row["source_text"],
        source_identity=row["source_identity"],
        model=row["model"],
        model_revision=row["model_revision"],
        labels=tuple(row["labels"]),
        precision=row["precision"],
        faces_mode=row["faces_mode"],
        detect_size=row["detect_size"],
        min_face_score=row["min_face_score"],
        min_face=row["min_face"],
        fingerprint=row["fingerprint"],
        images=tuple(_leased(job, image) for image in waiting),
    )


def renew_chunk(db: Database, lease: ChunkLease, lease_s: float) -> bool:
    """Move the deadline on. False when the work has lost its sense: the lease was taken back or the job was ended."""
    with db.write() as connection:
        now = _unflushed(db, connection)
        held = connection.execute(
            chunks.update()
            .where(chunks.c.id == lease.chunk_id, chunks.c.token == lease.token, chunks.c.state == "leased")
            .values(lease_expires_at=now + dt.timedelta(seconds=lease_s))
        ).rowcount
        status = connection.execute(sa.select(jobs.c.status).where(jobs.c.id == lease.job_id)).scalar_one_or_none()
    return held == 1 and status in ("expanding", "running")


def hand_back(db: Database, lease: ChunkLease) -> None:
    """Give a chunk back at once and uncharged: a stopping worker, a source that is away, an ended job."""
    with db.write() as connection:
        connection.execute(
            chunks.update()
            .where(chunks.c.id == lease.chunk_id, chunks.c.token == lease.token, chunks.c.state == "leased")
            .values(state="due", token=None, lease_owner=None, lease_expires_at=None)
        )


@dataclass(frozen=True)
class Due:
    """A job with chunks that wait for a worker, and what that worker has to be able to do."""

    job_id: int
    precision: str
    model: str
    model_revision: str


def due_jobs(db: Database) -> list[Due]:
    """The jobs with chunks that wait for a worker."""
    statement = sa.select(jobs.c.id, jobs.c.precision, jobs.c.model, jobs.c.model_revision).where(
        jobs.c.status.in_(("expanding", "running")),
        sa.exists().where(chunks.c.job_id == jobs.c.id, chunks.c.state == "due"),
    )
    with db.read() as connection:
        return [Due(*row) for row in connection.execute(statement)]
