"""The cache of results is the ledger itself: an image of the same owner with the same content and fingerprint.

Deleting the rows deletes the cache; no result outlives the jobs that hold it.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from mien.database import Database
from mien.ledger.commit import FaceOutcome, ImageOutcome
from mien.ledger.lease import ChunkLease
from mien.schema import faces, images, jobs


def _same_answer(lease: ChunkLease) -> sa.ColumnElement[bool]:
    return sa.and_(
        jobs.c.owner == lease.owner, jobs.c.fingerprint == lease.fingerprint, jobs.c.status != "deleting"
    )  # fmt: skip


def may_have(db: Database, lease: ChunkLease) -> bool:
    """Whether another job asked the same of the same model: only then is it worth hashing files ahead."""
    with db.read() as connection:
        return (
            connection.execute(
                sa.select(jobs.c.id).where(
                    _same_answer(lease), jobs.c.id != lease.job_id, jobs.c.ok + jobs.c.no_face > 0
                )
            ).first()
            is not None
        )


def look_up(db: Database, lease: ChunkLease, hashes: Collection[bytes]) -> dict[bytes, ImageOutcome]:
    """What is known of these contents: SHA-256 -> outcome, with ``image_id`` 0, to be put under an image's own id."""
    if not hashes:
        return {}
    with db.read() as connection:
        known = {
            row.sha256: row
            for row in connection.execute(
                sa.select(images)
                .join(jobs, jobs.c.id == images.c.job_id)
                .where(images.c.sha256.in_(list(hashes)), images.c.outcome.in_(("ok", "no_face")), _same_answer(lease))
            )
        }
        boxes = connection.execute(
            sa.select(faces)
            .where(faces.c.image_id.in_([row.id for row in known.values()]))
            .order_by(faces.c.image_id, faces.c.number)
        ).all()
    found: dict[int, list[FaceOutcome]] = {}
    for face in boxes:
        probabilities = tuple(face.probabilities[label] for label in lease.labels)
        found.setdefault(face.image_id, []).append(
            FaceOutcome(face.x, face.y, face.width, face.height, face.score, probabilities)
        )
    return {
        content: ImageOutcome(
            image_id=0,
            outcome=row.outcome,
            width=row.width,
            height=row.height,
            file_bytes=row.bytes,
            format=row.format,
            sha256=content,
            faces=tuple(found.get(row.id, ())),
            cached=True,
        )
        for content, row in known.items()
    }
