"""What a check says: accuracy per label with intervals, and Cohen's kappa, weighted back to all faces of the job.

Only first answers count, given before the rater saw the model's. Where several raters answered a face, their majority
is taken for the truth; a face without one tells nothing. Each face stands for the faces of its stratum (the model's
label and a band of confidence) over those of them that were answered, so what was left unanswered is taken to be like
the rest of its stratum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import sqlalchemy as sa

from mien.agreement import Share, cohen_kappa, weighted_share
from mien.database import Database
from mien.errors import ConflictError
from mien.review import Review
from mien.schema import corrections, faces, review_faces


@dataclass
class _Face:
    """A drawn face: what the model said, and each rater's first answer (None: undecidable)."""

    stratum: int
    model: str
    answers: dict[str, str | None] = field(default_factory=dict)

    @property
    def truth(self) -> str | None:
        """The label that more raters chose than any other."""
        votes = Counter(answer for answer in self.answers.values() if answer is not None).most_common(2)
        if not votes or (len(votes) == 2 and votes[0][1] == votes[1][1]):
            return None
        return votes[0][0]


def review_figures(db: Database, review: Review) -> dict[str, Any]:
    """The figures of a check, as they are now.

    Raises:
        ConflictError: ``no_figures``: the review is one in mode mend.
    """
    if review.mode != "check":
        raise ConflictError(
            "Mode mend shows the faces that the model was least sure of, so its answers say nothing about all faces. "
            "Draw a sample (mode check) for figures.",
            code="no_figures",
        )
    found, changed = _load(db, review.id)
    populations = [int(stratum["faces"]) for stratum in review.strata]
    raters = sorted({rater for face in found for rater in face.answers})
    told = [face for face in found if face.truth is not None]
    weights = _weights(told, populations)
    labels = list(review.job.labels)
    return {
        "review": review.public_id,
        "job": review.job.public_id,
        "faces": sum(populations),
        "drawn": review.drawn,
        "left": review.left,
        "answered": sum(bool(face.answers) for face in found),
        "told": len(told),
        "undecided": sum(bool(face.answers) and face.truth is None for face in found),
        "covered": _covered(told, populations),
        "accuracy": _share((face.truth == face.model, weight) for face, weight in zip(told, weights, strict=True)),
        "per_label": [_of_label(label, told, weights) for label in labels],
        "confusion": _confusion(labels, told, weights),
        "raters": [_of_rater(rater, found, populations, changed) for rater in raters],
        "pairs": [_of_pair(one, other, found, populations) for one, other in combinations(raters, 2)],
        "strata": [_of_stratum(number, stratum, found) for number, stratum in enumerate(review.strata)],
    }


def _load(db: Database, review_id: int) -> tuple[list[_Face], dict[str, int]]:
    """The drawn faces that are still there, and how many answers each rater changed."""
    with db.read() as connection:
        rows = connection.execute(
            sa.select(review_faces.c.image_id, review_faces.c.face_number, review_faces.c.stratum, faces.c.emotion)
            .join(
                faces,
                sa.and_(faces.c.image_id == review_faces.c.image_id, faces.c.number == review_faces.c.face_number),
            )
            .where(review_faces.c.review_id == review_id)
            .order_by(review_faces.c.place)
        ).all()
        given = connection.execute(
            sa.select(
                corrections.c.image_id, corrections.c.face_number, corrections.c.rater, corrections.c.first_emotion,
                corrections.c.changes,
            ).where(corrections.c.review_id == review_id)
        ).all()  # fmt: skip
    found = {(row.image_id, row.face_number): _Face(row.stratum, row.emotion) for row in rows}
    changed: Counter[str] = Counter()
    for answer in given:
        face = found.get((answer.image_id, answer.face_number))
        if face is not None:
            face.answers[answer.rater] = answer.first_emotion
            changed[answer.rater] += answer.changes > 0
    return list(found.values()), dict(changed)


def _weights(some: Sequence[_Face], populations: Sequence[int]) -> list[float]:
    """How many faces of the job each of these stands for."""
    seen = Counter(face.stratum for face in some)
    return [populations[face.stratum] / seen[face.stratum] for face in some]


def _covered(told: Sequence[_Face], populations: Sequence[int]) -> float:
    """The share of the job's faces whose strata have an answer: what the figures speak of."""
    total = sum(populations)
    return sum(populations[number] for number in {face.stratum for face in told}) / total if total else 0.0


def _of_label(label: str, told: Sequence[_Face], weights: Sequence[float]) -> dict[str, Any]:
    both = list(zip(told, weights, strict=True))
    return {
        "label": label,
        "precision": _share((face.truth == label, weight) for face, weight in both if face.model == label),
        "recall": _share((face.model == label, weight) for face, weight in both if face.truth == label),
    }


def _confusion(labels: Sequence[str], told: Sequence[_Face], weights: Sequence[float]) -> dict[str, Any]:
    place = {label: number for number, label in enumerate(labels)}
    seen = [[0] * len(labels) for _ in labels]
    stands_for = [[0.0] * len(labels) for _ in labels]
    for face, weight in zip(told, weights, strict=True):
        row, column = place[face.truth or ""], place[face.model]
        seen[row][column] += 1
        stands_for[row][column] += weight
    return {
        "labels": list(labels),
        "seen": seen,
        "faces": [[round(value, 1) for value in row] for row in stands_for],
    }


def _of_rater(
    rater: str, found: Sequence[_Face], populations: Sequence[int], changed: dict[str, int]
) -> dict[str, Any]:
    answered = [face for face in found if rater in face.answers]
    decided = [face for face in answered if face.answers[rater] is not None]
    weights = _weights(decided, populations)
    return {
        "rater": rater,
        "answers": len(answered),
        "undecidable": len(answered) - len(decided),
        "changed": changed.get(rater, 0),
        "accuracy": _share(
            (face.answers[rater] == face.model, weight) for face, weight in zip(decided, weights, strict=True)
        ),
        "kappa": cohen_kappa([(face.answers[rater] or "", face.model) for face in decided], weights),
    }


def _of_pair(one: str, other: str, found: Sequence[_Face], populations: Sequence[int]) -> dict[str, Any]:
    common = [face for face in found if face.answers.get(one) is not None and face.answers.get(other) is not None]
    weights = _weights(common, populations)
    answers = [(face.answers[one] or "", face.answers[other] or "") for face in common]
    return {
        "raters": [one, other],
        "faces": len(common),
        "agreement": _share((a == b, weight) for (a, b), weight in zip(answers, weights, strict=True)),
        "kappa": cohen_kappa(answers, weights),
    }


def _of_stratum(number: int, stratum: dict[str, Any], found: Sequence[_Face]) -> dict[str, Any]:
    told = [face for face in found if face.stratum == number and face.truth is not None]
    return {**stratum, "told": len(told), "agreed": sum(face.truth == face.model for face in told)}


def _share(seen: Iterable[tuple[bool, float]]) -> dict[str, Any]:
    share: Share = weighted_share(seen)
    return asdict(share)
