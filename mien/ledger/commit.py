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
from mien.ledger.bulk import KeptFace, write_faces, write_outcomes
from mien.ledger.counters import move_counters
from mien.ledger.lease import ChunkLease
from mien.ledger.tallies import Counted, write_tallies
from mien.schema import chunks, jobs
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
    kept = [
        kept_face(outcome.image_id, number, face) for outcome in outcomes for number, face in enumerate(outcome.faces)
    ]
    with db.write() as connection:
        now = db.now(connection)
        held = connection.execute(
            chunks.update()
            .where(chunks.c.id == lease.chunk_id, chunks.c.token == lease.token, chunks.c.state == "leased")
            .values(state="done", token=None, lease_owner=None, lease_expires_at=None)
        ).rowcount
        if held != 1:
            raise LeaseLostError(f"The lease on chunk {lease.chunk_id} of job {lease.public_id} was taken back.")
        write_outcomes(connection, outcomes)
        write_faces(connection, lease.job_id, lease.chunk_id, lease.labels, kept)
        write_tallies(connection, lease.job_id, lease.labels, _counted(lease, outcomes, kept))
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


def face_values(face: FaceOutcome, labels: Sequence[str]) -> dict[str, Any]:
    """A face as it is kept and shown, by name."""
    return kept_face(0, 0, face).values(labels)


def kept_face(image_id: int, number: int, face: FaceOutcome) -> KeptFace:
    """A face as it is kept and shown: rounded, with its most probable label (the first of equal ones)."""
    shares = face.probabilities
    return KeptFace(
        image_id,
        number,
        (
            round(face.x, BOX_DIGITS),
            round(face.y, BOX_DIGITS),
            round(face.width, BOX_DIGITS),
            round(face.height, BOX_DIGITS),
        ),
        None if face.score is None else round(face.score, PROBABILITY_DIGITS),
        shares.index(max(shares)),
        tuple([round(share, PROBABILITY_DIGITS) for share in shares]),
    )


def _counted(lease: ChunkLease, outcomes: Sequence[ImageOutcome], kept: Sequence[KeptFace]) -> Iterable[Counted]:
    boxes: dict[int, list[tuple[str, float]]] = {}
    for face in kept:
        boxes.setdefault(face.image_id, []).append((lease.labels[face.top], face.confidence))
    paths = {image.id: image.path for image in lease.images}
    for outcome in outcomes:
        yield Counted(lease.chunk_id, paths[outcome.image_id], outcome.outcome, boxes.get(outcome.image_id, ()))


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
