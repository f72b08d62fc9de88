"""Short ways to write a job into a ledger, work on it without engines, and check what always holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mien.control import Control
from mien.database import Database
from mien.ledger.commit import FaceOutcome, ImageOutcome, commit_chunk
from mien.ledger.lease import ChunkLease, LeasedImage, Taker, take_chunk
from mien.ledger.submit import NewJob, submit
from mien.ledger.tallies import sum_counts
from mien.queue import create_celery
from mien.schema import faces, images, jobs, tallies
from mien.settings import load_settings
from mien.sources import folder_identity
from mien.states import OUTCOMES

LABELS = ("happy", "sad", "neutral")
NOBODY = "redis://127.0.0.1:1/0"


def new_job(folder: Path, **changes: Any) -> NewJob:
    """A job on ``folder`` as submission would write it."""
    root = bytes(folder)
    job = NewJob(
        owner="local",
        source_type="folder",
        source_path=root,
        source_text=str(folder),
        source_identity=folder_identity(root),
        recursive=True,
        include=[],
        exclude=[],
        model="tiny",
        model_revision="a" * 64,
        labels=list(LABELS),
        precision="fp32",
        faces_mode="detect",
        detect_size=640,
        min_face_score=0.7,
        min_face=0,
        fingerprint="f" * 64,
        provenance={},
        request_hash="0" * 64,
    )
    return replace(job, **changes)


def make_files(folder: Path, count: int) -> Path:
    """A folder with ``count`` files that are images by their ending."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(b"")
    return folder


def control(db: Database, **settings: Any) -> Control:
    """A control process without a broker: its rings go nowhere, as when the broker is down."""
    return Control(db, load_settings(**settings), create_celery(NOBODY), "control", threading.Event())


def expanded_job(db: Database, folder: Path, count: int, chunk_size: int = 4, **changes: Any) -> str:
    """Submit and expand a job of ``count`` images; gives its public id."""
    public_id, _ = submit(db, new_job(make_files(folder, count), **changes))
    control(db, chunk_size=chunk_size).expand()
    return public_id


def taker(name: str = "worker", precisions: Sequence[str] = ("fp32", "int8")) -> Taker:
    """A worker that can do what CPU workers can."""
    return Taker(name, tuple(precisions))


def face(*probabilities: float, x: float = 1.0) -> FaceOutcome:
    """A face of 10 x 10 pixels."""
    return FaceOutcome(x, 2.0, 10.0, 10.0, 0.9, probabilities or (0.7, 0.2, 0.1))


def ok(image: LeasedImage) -> ImageOutcome:
    """The image showed one happy face."""
    return ImageOutcome(image.id, "ok", width=40, height=30, sha256=image.path.ljust(32, b"\0"), faces=(face(),))


def bad(image: LeasedImage) -> ImageOutcome:
    """The image could not be read."""
    return ImageOutcome(image.id, "failed", error_code="corrupt", error="It is broken.")


def work_off(
    db: Database, answer: Callable[[LeasedImage], ImageOutcome] = ok, limit: int | None = None
) -> list[ChunkLease]:
    """Take and commit chunks until none is due (or ``limit``), answering for each image; gives the leases."""
    done: list[ChunkLease] = []
    while (limit is None or len(done) < limit) and (lease := take_chunk(db, taker(), 60)):
        commit_chunk(db, lease, [answer(image) for image in lease.images])
        done.append(lease)
    return done


def assert_exact(db: Database, public_id: str) -> sa.Row[Any]:
    """The job's counters equal its rows, in one snapshot; gives the job's row."""
    with db.read() as connection:
        job = connection.execute(sa.select(jobs).where(jobs.c.public_id == public_id)).one()
        rows = dict(
            connection.execute(
                sa.select(images.c.outcome, sa.func.count()).where(images.c.job_id == job.id).group_by(images.c.outcome)
            ).all()
        )
        face_rows = connection.execute(
            sa.select(sa.func.count()).select_from(faces).where(faces.c.job_id == job.id)
        ).scalar_one()
    counters = {outcome: job._mapping[outcome] for outcome in OUTCOMES if job._mapping[outcome]}
    assert counters == rows
    assert job.total == sum(rows.values())
    assert job.faces == face_rows
    _assert_tallied(db, job.id)
    return job


def _assert_tallied(db: Database, job_id: int) -> None:
    """Every image with an outcome, and every face, is counted in exactly one tally, under its chunk and folder."""
    counted: dict[tuple[object, ...], int] = {}
    with db.read() as connection:
        labels = connection.execute(sa.select(jobs.c.labels).where(jobs.c.id == job_id)).scalar_one()
        found = connection.execute(sa.select(tallies).where(tallies.c.job_id == job_id)).all()
        rows = connection.execute(sa.select(images).where(images.c.job_id == job_id)).all()
        boxes = connection.execute(sa.select(faces).where(faces.c.job_id == job_id)).all()
    chunk_of = {row.id: row.chunk_id for row in rows}
    for row in rows:
        if row.outcome != "pending":
            key = (row.chunk_id, row.path.rpartition(b"/")[0], row.outcome)
            counted[key] = counted.get(key, 0) + 1
    tallied = {
        (row.chunk_id, row.folder, outcome): row._mapping[outcome]
        for row in found
        for outcome in ("ok", "no_face", "failed", "cancelled")
        if row._mapping[outcome]
    }
    assert tallied == counted
    assert all(row.chunk_id == chunk_of[row.image_id] for row in boxes)
    by_label, histogram = sum_counts([row.counts for row in found], labels)
    assert by_label == {label: sum(box.emotion == label for box in boxes) for label in labels}
    assert sum(histogram) == sum(row.faces for row in found) == len(boxes)
