"""Jobs to review: many faces whose labels and confidences are known."""

from __future__ import annotations

import random
from pathlib import Path

from mien.database import Database
from mien.jobs import get_job
from mien.ledger.commit import FaceOutcome, ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.review_faces import faces_page
from tests.support.ledger import expanded_job, work_off

TOPS = (0.4, 0.45, 0.6, 0.7, 0.85, 0.95)
"""Confidences that occur, two in each band."""


def surely(label: int, confidence: float) -> tuple[float, ...]:
    """Probabilities of the three labels of ``tests.support.ledger``, of which this one has this confidence."""
    rest = (1 - confidence) / 2
    return tuple(confidence if place == label else rest for place in range(3))


def reviewed_job(db: Database, folder: Path, images: int = 60, *, seed: int = 1, **changes: object) -> str:
    """A completed job with one or two faces per image: label 0 is frequent, label 2 rare; gives its id."""
    public_id = expanded_job(db, folder, images, **changes)  # type: ignore[arg-type]
    randomly = random.Random(seed)

    def answer(image: LeasedImage) -> ImageOutcome:
        faces = tuple(
            FaceOutcome(
                5.0 + 100 * number, 2.0, 20.0, 24.0, 0.9,
                surely(randomly.choices((0, 1, 2), (12, 5, 1))[0], randomly.choice(TOPS)),
            )
            for number in range(randomly.choice((1, 1, 2)))
        )  # fmt: skip
        return ImageOutcome(image.id, "ok", width=240, height=120, sha256=image.path.ljust(32, b"\0"), faces=faces)

    work_off(db, answer)
    assert get_job(db, "local", public_id).complete
    return public_id


def all_faces(db: Database, review: object, rater: str, state: str = "open", page: int = 7) -> list[dict[str, object]]:
    """Every face of a review as this rater sees them, page by page."""
    found: list[dict[str, object]] = []
    after = None
    while True:
        part = faces_page(db, review, rater, state=state, after=after, limit=page)  # type: ignore[arg-type]
        found += part.items
        after = part.next
        if not part.has_more:
            return found
