"""Two jobs over the same images, compared: where their models agree, and which is right where people have looked.

Images are matched by path and content, faces by their boxes. Right and wrong are counted on answers of reviews in mode
*check* alone: their raters answered before they saw what a model says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mien.agreement import cohen_kappa
from mien.database import Database
from mien.errors import ConflictError, InvalidRequestError, UnprocessableError
from mien.jobs import Job
from mien.paging import Page, decode_cursor, encode_cursor
from mien.paths import exact_name
from mien.schema import corrections, faces, images, reviews

SAME_FACE_IOU = 0.5
"""Overlap (intersection over union) from which two boxes are of one face, as in PASCAL VOC (Everingham et al. 2010)."""
PAGE = 1000
LOOKED_AT = 20_000
"""Images that one page of differences looks at, at most."""


@dataclass(frozen=True)
class Box:
    """A face of one of the jobs."""

    number: int
    x: float
    y: float
    width: float
    height: float
    emotion: str
    confidence: float


@dataclass(frozen=True)
class Pair:
    """One image of both jobs, with equal content. ``matched``: faces of both; ``only_a``, ``only_b``: of one."""

    image_id: int
    path: bytes
    outcome_a: str
    outcome_b: str
    matched: tuple[tuple[Box, Box], ...]
    only_a: tuple[Box, ...]
    only_b: tuple[Box, ...]

    @property
    def differs(self) -> bool:
        """Whether the jobs say different things about it."""
        told_apart = any(a.emotion != b.emotion for a, b in self.matched)
        return told_apart or bool(self.only_a or self.only_b) or self.outcome_a != self.outcome_b


@dataclass
class _Counts:
    images: Counter[str] = field(default_factory=Counter)
    faces: Counter[str] = field(default_factory=Counter)
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)


def compare_jobs(db: Database, a: Job, b: Job) -> dict[str, Any]:
    """Agreement and confusion of two jobs over the same images, and McNemar's test where people have checked.

    Raises:
        InvalidRequestError: ``same_job``.
        ConflictError: ``job_not_finished``.
        UnprocessableError: ``nothing_to_compare``, no image is in both with the same content.
    """
    _check(a, b)
    truths = _truths(db, a, b)
    shared = set(a.labels) & set(b.labels)
    counts = _Counts()
    for item in _pairs(db, a, b):
        if not isinstance(item, Pair):
            counts.images[item] += 1
            continue
        counts.images["same"] += 1
        counts.images["differ"] += item.differs
        counts.faces["only_a"] += len(item.only_a)
        counts.faces["only_b"] += len(item.only_b)
        counts.cells.update((one.emotion, other.emotion) for one, other in item.matched)
        if item.path in truths:
            counts.checked.update(_judged(item, truths[item.path], shared))
    if not counts.images["same"]:
        raise UnprocessableError(
            f"The jobs {a.public_id} and {b.public_id} have no image in common: none has the same path and the same "
            "content in both. Compare jobs over the same source; `rerun` makes one with another model.",
            code="nothing_to_compare",
        )
    return _told(a, b, counts)


def differences(db: Database, a: Job, b: Job, *, after: str | None, limit: int) -> Page[dict[str, Any]]:
    """The images that the jobs say different things about, in path order.

    A page may hold fewer than ``limit``, even none, and more follow: it looks at 20,000 images at most.

    Raises:
        InvalidRequestError: ``same_job``, ``bad_cursor``.
        ConflictError: ``job_not_finished``.
    """
    _check(a, b)
    scope = f"compare {a.public_id} {b.public_id}"
    start = b""
    if after is not None:
        (image_id,) = decode_cursor(after, scope, 1)
        with db.read() as connection:
            found = connection.execute(
                sa.select(images.c.path).where(images.c.id == image_id, images.c.job_id == a.id)
            ).scalar_one_or_none()
        if found is None:
            raise InvalidRequestError(
                "The image at which `after` stands was deleted; begin without it.", code="bad_cursor", field="after"
            )
        start = found
    items: list[dict[str, Any]] = []
    last = after
    for looked_at, item in enumerate(_pairs(db, a, b, start), 1):
        if isinstance(item, Pair):
            if item.differs:
                if len(items) == limit:
                    return Page(items, last, has_more=True)
                items.append(_difference(item))
            last = encode_cursor(scope, item.image_id)
        if looked_at >= LOOKED_AT:
            return Page(items, last, has_more=True)
    return Page(items, last, has_more=False)


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p-value of McNemar's exact test: how likely so uneven a split is if both models are equally good.

    ``only_a``: faces that A alone has right; ``only_b``: that B alone has right. Under the null hypothesis the smaller
    one is binomial with n = only_a + only_b and one half; the p-value is twice its lower tail, at most 1 (McNemar 1947,
    Psychometrika 12:153; exact form: Fay 2010, Biostatistics 11:373).
    """
    total, least = only_a + only_b, min(only_a, only_b)
    tail = term = 1  # binomial coefficients, in whole numbers
    for k in range(1, least + 1):
        term = term * (total - k + 1) // k
        tail += term
    return min(1.0, 2 * tail / (1 << total))  # of whole numbers, however large, the quotient is exact


def _check(a: Job, b: Job) -> None:
    if a.id == b.id:
        raise InvalidRequestError("A job is compared with another one, not with itself.", code="same_job")
    for job in (a, b):
        if not job.is_final:
            raise ConflictError(
                f"The job {job.public_id} is {job.status}; wait until it has ended, then compare.",
                code="job_not_finished",
            )


# matching -------------------------------------------------------------------------------------------------------------


def _pairs(db: Database, a: Job, b: Job, after: bytes = b"") -> Iterator[Pair | str]:
    """Every image of A behind ``after`` in path order: with what B says, or why it cannot be compared."""
    one, other = images.alias("one"), images.alias("other")
    statement = (
        sa.select(
            one.c.id, one.c.path, one.c.outcome, one.c.sha256,
            other.c.id.label("b_id"), other.c.outcome.label("b_outcome"), other.c.sha256.label("b_sha256"),
        )
        .select_from(one.outerjoin(other, sa.and_(other.c.job_id == b.id, other.c.path == one.c.path)))
        .where(one.c.job_id == a.id, one.c.path > sa.bindparam("after"))
        .order_by(one.c.path)
        .limit(PAGE)
    )  # fmt: skip
    while True:
        with db.read() as connection:
            rows = connection.execute(statement, {"after": after}).all()
            alike = [row for row in rows if row.sha256 is not None and row.sha256 == row.b_sha256]
            boxes = _boxes(connection, [key for row in alike for key in (row.id, row.b_id)])
        same = {row.id for row in alike}
        for row in rows:
            if row.b_id is None:
                yield "only_a"
            elif row.id not in same:
                yield "not_read" if row.sha256 is None or row.b_sha256 is None else "changed"
            else:
                matched, only_a, only_b = match(boxes.get(row.id, []), boxes.get(row.b_id, []))
                yield Pair(row.id, row.path, row.outcome, row.b_outcome, matched, only_a, only_b)
        if len(rows) < PAGE:
            return
        after = rows[-1].path


def _boxes(connection: sa.Connection, ids: Sequence[int]) -> dict[int, list[Box]]:
    found: dict[int, list[Box]] = {}
    statement = (
        sa.select(
            faces.c.image_id, faces.c.number, faces.c.x, faces.c.y, faces.c.width, faces.c.height, faces.c.emotion,
            faces.c.confidence,
        )
        .where(faces.c.image_id.in_(ids))
        .order_by(faces.c.image_id, faces.c.number)
    )  # fmt: skip
    for row in connection.execute(statement) if ids else ():
        found.setdefault(row[0], []).append(Box(*row[1:]))
    return found


def match(a: Sequence[Box], b: Sequence[Box]) -> tuple[tuple[tuple[Box, Box], ...], tuple[Box, ...], tuple[Box, ...]]:
    """Faces of both jobs, by the overlap of their boxes: the largest overlap first, each face once. And the rest."""
    overlaps = sorted(
        (-overlap, one.number, other.number)
        for one in a
        for other in b
        if (overlap := iou(one, other)) >= SAME_FACE_IOU
    )
    in_a, in_b = {box.number: box for box in a}, {box.number: box for box in b}
    found: list[tuple[Box, Box]] = []
    for _, one_number, other_number in overlaps:
        if one_number in in_a and other_number in in_b:
            found.append((in_a.pop(one_number), in_b.pop(other_number)))
    return tuple(sorted(found, key=lambda pair: pair[0].number)), tuple(in_a.values()), tuple(in_b.values())


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (one.width * one.height + other.width * other.height - both)


# what people said -----------------------------------------------------------------------------------------------------


def _truths(db: Database, a: Job, b: Job) -> dict[bytes, list[tuple[str, int, str]]]:
    """Answers of checks of either job: path -> (which job, face, label), one for each rater that could decide.

    The first answer of a rater counts, given before the model's was shown.
    """
    statement = (
        sa.select(images.c.path, images.c.job_id, corrections.c.face_number, corrections.c.first_emotion)
        .join(reviews, reviews.c.id == corrections.c.review_id)
        .join(images, images.c.id == corrections.c.image_id)
        .where(
            reviews.c.job_id.in_([a.id, b.id]), corrections.c.mode == "check", corrections.c.first_emotion.is_not(None)
        )
    )
    found: dict[bytes, list[tuple[str, int, str]]] = {}
    with db.read() as connection:
        for row in connection.execute(statement):
            found.setdefault(row.path, []).append(
                ("a" if row.job_id == a.id else "b", row.face_number, row.first_emotion)
            )
    return found


def _judged(item: Pair, answers: Sequence[tuple[str, int, str]], shared: set[str]) -> Iterator[str]:
    """For each checked face of an image who is right about it, or why it cannot be told."""
    told: dict[tuple[str, int], set[str]] = {}
    pair_of = {("a", one.number): (one, other) for one, other in item.matched}
    pair_of |= {("b", other.number): (one, other) for one, other in item.matched}
    for side, number, emotion in answers:
        pair = pair_of.get((side, number))
        # a face that was checked in both jobs is one face
        key = (side, number) if pair is None else ("a", pair[0].number)
        told.setdefault(key, set()).add(emotion)
    for key, emotions in told.items():
        if key not in pair_of:
            yield "unmatched"
        elif len(emotions) > 1:
            yield "raters_differ"
        elif not emotions <= shared:
            yield "label_of_one_model"
        else:
            (truth,) = emotions
            one, other = pair_of[key]
            yield {(True, True): "both", (True, False): "only_a", (False, True): "only_b"}.get(
                (one.emotion == truth, other.emotion == truth), "neither"
            )


# the answer -----------------------------------------------------------------------------------------------------------


def _told(a: Job, b: Job, counts: _Counts) -> dict[str, Any]:
    cells = counts.cells
    matched = cells.total()
    agree = sum(number for (one, other), number in cells.items() if one == other)
    in_both = counts.images.total() - counts.images["differ"] - counts.images["only_a"]
    return {
        "a": _facts(a),
        "b": _facts(b),
        "images": {
            "same": counts.images["same"],
            "differ": counts.images["differ"],
            "changed": counts.images["changed"],
            "not_read": counts.images["not_read"],
            "only_a": counts.images["only_a"],
            "only_b": b.counts["total"] - in_both,
        },
        "faces": {
            "matched": matched,
            "agree": agree,
            "only_a": counts.faces["only_a"],
            "only_b": counts.faces["only_b"],
        },
        "agreement": agree / matched if matched else None,
        "kappa": cohen_kappa(list(cells), [float(number) for number in cells.values()]),
        "confusion": [[cells[one, other] for other in b.labels] for one in a.labels],
        "checked": _checked(counts.checked),
    }


def _facts(job: Job) -> dict[str, Any]:
    return {"job": job.public_id, "model": job.model, "revision": job.model_revision, "labels": list(job.labels)}


def _checked(checked: Counter[str]) -> dict[str, Any] | None:
    total = sum(checked[name] for name in ("both", "only_a", "only_b", "neither"))
    left_out = {name: checked[name] for name in ("unmatched", "raters_differ", "label_of_one_model")}
    if not total and not any(left_out.values()):
        return None
    return {
        "faces": total,
        **{f"{name}_right": checked[name] for name in ("both", "only_a", "only_b", "neither")},
        "p_value": mcnemar(checked["only_a"], checked["only_b"]) if total else None,
        "left_out": left_out,
    }


def _difference(item: Pair) -> dict[str, Any]:
    apart = [(one, other) for one, other in item.matched if one.emotion != other.emotion]
    return {
        "file": exact_name(item.path),
        "outcome_a": item.outcome_a,
        "outcome_b": item.outcome_b,
        "faces": [
            *({"a": _face(one), "b": _face(other)} for one, other in apart),
            *({"a": _face(one), "b": None} for one in item.only_a),
            *({"a": None, "b": _face(other)} for other in item.only_b),
        ],
    }


def _face(box: Box) -> dict[str, Any]:
    return {"face": box.number, "emotion": box.emotion, "confidence": box.confidence,
            "x": box.x, "y": box.y, "width": box.width, "height": box.height}  # fmt: skip
