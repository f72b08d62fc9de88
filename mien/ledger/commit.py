"""The commit: a chunk's faces, outcomes, state and the job's counters in one transaction, if the token matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.errors import LeaseLostError
from mien.faults import fault_point
from mien.ledger.counters import move_counters
from mien.ledger.lease import ChunkLease
from mien.ledger.tallies import Counted, write_tallies
from mien.schema import chunks, faces, images, jobs
from mien.stage_times import Clock, add_lap, sum_times

PROBABILITY_DIGITS = 6
BOX_DIGITS = 1


@dataclass(frozen=True)
class FaceOutcome:
    """One face: its box in pixels of the upright image, the detector's score, each label's probability in order."""

    x: float
    y: float
    width: float
    height: float
    score: float | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image. ``faces`` are in order: the largest is number 0."""

    image_id: int
    outcome: str
    error_code: str | None = None
    error: str | None = None
    width: int | None = None
    height: int | None = None
    file_bytes: int | None = None
    format: str | None = None
    sha256: bytes | None = None
    faces: tuple[FaceOutcome, ...] = ()
    cached: bool = False
    read_s: float = 0.0
    read_wait_s: float = 0.0
    decode_s: float = 0.0
    decode_wait_s: float = 0.0
    detect_s: float = 0.0
    detect_wait_s: float = 0.0
    classify_s: float = 0.0
    classify_wait_s: float = 0.0


def commit_chunk(
    db: Database,
    lease: ChunkLease,
    outcomes: Sequence[ImageOutcome],
    *,
    spent: Mapping[str, float] | None = None,
    clock: Clock | None = None,
) -> str:
    """Write the results of a leased chunk, all or nothing; gives the job's status.

    Args:
        spent: seconds of the chunk beside those of its images, by the names of ``TIME_FIELDS``.
        clock: runs since the writing began. It is asked just before the last statements; what passes after that
            (the flush to the disk) is left in it, for the caller to add to a later chunk of the job.

    Raises:
        LeaseLostError: the chunk belongs to somebody else now; nothing was written.
        ValueError: the outcomes are not exactly those of the lease's images, each with one outcome and its faces.
    """
    clock = clock or Clock()
    _check(lease, outcomes)
    face_rows = [row for outcome in outcomes for row in _face_rows(lease, outcome)]
    with db.write() as connection:
        now = db.now(connection)
        held = connection.execute(
            chunks.update()
            .where(chunks.c.id == lease.chunk_id, chunks.c.token == lease.token, chunks.c.state == "leased")
            .values(state="done", token=None, lease_owner=None, lease_expires_at=None)
        ).rowcount
        if held != 1:
            raise LeaseLostError(f"The lease on chunk {lease.chunk_id} of job {lease.public_id} was taken back.")
        if face_rows:
            connection.execute(faces.insert(), face_rows)
        connection.execute(_UPDATE_IMAGE, [_image_row(outcome) for outcome in outcomes])
        write_tallies(connection, lease.job_id, lease.labels, _counted(lease, outcomes, face_rows))
        fault_point("in_commit")
        times = _times(outcomes, spent or {}, clock)
        row = move_counters(
            connection, lease.job_id, now, _moved(outcomes) | times, last_commit_at=now, notice_code=_unless_folders(),
            notice=sa.case((jobs.c.notice_code == "folders_unreadable", jobs.c.notice), else_=None),
        )  # fmt: skip
        connection.execute(
            chunks.update()
            .where(chunks.c.id == lease.chunk_id)
            .values(commit_number=row.commits, committed_at=now, **times)
        )
    return str(row.status)


_UPDATE_IMAGE = (
    images.update()
    .where(images.c.id == sa.bindparam("image_id"), images.c.outcome == "pending")
    .values(
        **{
            name: sa.bindparam(f"new_{name}")
            for name in (
                "outcome", "error_code", "error", "width", "height", "bytes", "format", "sha256", "faces", "cached"
            )
        }
    )
)  # fmt: skip


def _unless_folders() -> sa.ColumnElement[Any]:
    # progress clears what held the job back, but not what the walk could not read
    return sa.case((jobs.c.notice_code == "folders_unreadable", jobs.c.notice_code), else_=None)


def _check(lease: ChunkLease, outcomes: Sequence[ImageOutcome]) -> None:
    if sorted(o.image_id for o in outcomes) != sorted(i.id for i in lease.images):
        raise ValueError("the outcomes are not those of the leased images")
    for outcome in outcomes:
        if outcome.outcome not in ("ok", "no_face", "failed"):
            raise ValueError(f"{outcome.outcome!r} is no outcome of classification")
        if (outcome.outcome == "ok") != bool(outcome.faces) or (outcome.outcome == "failed") != bool(
            outcome.error_code
        ):
            raise ValueError(f"the outcome {outcome.outcome!r} contradicts its faces or its error")
        if any(len(face.probabilities) != len(lease.labels) for face in outcome.faces):
            raise ValueError("a face has another number of probabilities than the job has labels")


def _face_rows(lease: ChunkLease, outcome: ImageOutcome) -> Iterable[dict[str, Any]]:
    for number, face in enumerate(outcome.faces):
        yield {
            "image_id": outcome.image_id,
            "number": number,
            "job_id": lease.job_id,
            "chunk_id": lease.chunk_id,
            **face_values(face, lease.labels),
        }


def face_values(face: FaceOutcome, labels: Sequence[str]) -> dict[str, Any]:
    """A face as it is kept and shown: rounded, with its most probable label."""
    top = max(range(len(labels)), key=face.probabilities.__getitem__)
    return {
        "x": round(face.x, BOX_DIGITS),
        "y": round(face.y, BOX_DIGITS),
        "width": round(face.width, BOX_DIGITS),
        "height": round(face.height, BOX_DIGITS),
        "score": None if face.score is None else round(face.score, PROBABILITY_DIGITS),
        "emotion": labels[top],
        "confidence": round(face.probabilities[top], PROBABILITY_DIGITS),
        "probabilities": {
            label: round(p, PROBABILITY_DIGITS) for label, p in zip(labels, face.probabilities, strict=True)
        },
    }


def _counted(
    lease: ChunkLease, outcomes: Sequence[ImageOutcome], face_rows: Iterable[dict[str, Any]]
) -> Iterable[Counted]:
    boxes: dict[int, list[tuple[str, float]]] = {}
    for row in face_rows:
        boxes.setdefault(row["image_id"], []).append((row["emotion"], row["confidence"]))
    paths = {image.id: image.path for image in lease.images}
    for outcome in outcomes:
        yield Counted(lease.chunk_id, paths[outcome.image_id], outcome.outcome, boxes.get(outcome.image_id, ()))


def _image_row(outcome: ImageOutcome) -> dict[str, Any]:
    return {
        "image_id": outcome.image_id,
        "new_outcome": outcome.outcome,
        "new_error_code": outcome.error_code,
        "new_error": outcome.error,
        "new_width": outcome.width,
        "new_height": outcome.height,
        "new_bytes": outcome.file_bytes,
        "new_format": outcome.format,
        "new_sha256": outcome.sha256,
        "new_faces": len(outcome.faces),
        "new_cached": outcome.cached,
    }


def _moved(outcomes: Sequence[ImageOutcome]) -> dict[str, float]:
    moved: Counter[str] = Counter(o.outcome for o in outcomes)
    return {
        **moved,
        "pending": -len(outcomes),
        "commits": 1,
        "faces": sum(len(o.faces) for o in outcomes),
        "cached": sum(o.cached for o in outcomes),
    }


def _times(outcomes: Sequence[ImageOutcome], spent: Mapping[str, float], clock: Clock) -> dict[str, float]:
    times = sum_times(outcomes)
    for name, seconds in spent.items():
        times[name] += seconds
    add_lap(times, "write", clock.lap())
    return times
