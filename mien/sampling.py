"""A random sample of a job's faces, stratified by predicted label and confidence, exact whatever the job's size.

Faces are counted per chunk and stratum by an index alone; within a stratum ranks are drawn without replacement, and
only the chunks that hold a drawn rank are read. So every set of faces of a stratum is as likely as any other.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import sqlalchemy as sa

from mien.batches import batched
from mien.schema import chunks, faces

BANDS = (0.5, 0.8)
"""Confidence is low below the first, high from the second on."""
LEAST_PER_STRATUM = 2
"""With one face a stratum's share could only be 0 or 1."""
CHUNKS_TOGETHER = 500


@dataclass(frozen=True, order=True)
class Stratum:
    """Faces of one predicted label in one band of confidence: ``low <= confidence < high`` (the last band: <= 1)."""

    label: str
    low: float
    high: float


@dataclass(frozen=True)
class Drawn:
    """One drawn face."""

    chunk_id: int
    image_id: int
    face_number: int
    stratum: Stratum


@dataclass
class _Counted:
    """Where the faces of a stratum lie: chunks and how many of them each holds."""

    chunk_ids: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """What was drawn, in random order, and how many faces each stratum has."""

    faces: list[Drawn]
    strata: dict[Stratum, int]


def draw_sample(connection: sa.Connection, job_id: int, labels: Sequence[str], size: int, seed: int) -> Sample:
    """Draw ``size`` faces of the job (all, if it has fewer)."""
    found = _count(connection, job_id, labels)
    populations = {stratum: sum(where.counts) for stratum, where in found.items()}
    generator = random.Random(seed)  # noqa: S311 - a sample that can be drawn again, not a secret
    wanted: dict[int, list[tuple[Stratum, int]]] = {}
    for stratum, count in allocate(populations, size).items():
        where = found[stratum]
        ends = list(accumulate(where.counts))
        for rank in generator.sample(range(ends[-1]), count):
            place = bisect_right(ends, rank)
            offset = rank - (ends[place] - where.counts[place])
            wanted.setdefault(where.chunk_ids[place], []).append((stratum, offset))
    drawn = [face for chunk_id in sorted(wanted) for face in _pick(connection, chunk_id, wanted[chunk_id])]
    generator.shuffle(drawn)
    return Sample(drawn, populations)


def allocate(populations: Mapping[Stratum, int], size: int) -> dict[Stratum, int]:
    """How many faces to draw from each stratum: by the square root of its size, between all alike (which would serve
    rare labels only) and in proportion (which would leave them out); Bankier 1988, The American Statistician 42:174.
    """
    there = {stratum: count for stratum, count in sorted(populations.items()) if count > 0}
    size = min(size, sum(there.values()))
    given = {stratum: min(count, LEAST_PER_STRATUM) for stratum, count in there.items()}
    if sum(given.values()) > size:  # a tiny sample: one of each, or of the largest
        largest = sorted(there, key=lambda stratum: (-there[stratum], stratum))[:size]
        given = {stratum: int(stratum in largest) for stratum in there}
    roots = {stratum: math.sqrt(count) for stratum, count in there.items()}
    while (left := size - sum(given.values())) > 0:  # one at a time to whoever has the least of its due
        open_strata = [stratum for stratum in there if given[stratum] < there[stratum]]
        share = left / sum(roots[stratum] for stratum in open_strata)
        steps = {s: min(there[s] - given[s], int(share * roots[s])) for s in open_strata}
        if not any(steps.values()):
            neediest = sorted(open_strata, key=lambda s: (given[s] / roots[s], s))[:left]
            steps = dict.fromkeys(neediest, 1)
        for stratum, step in steps.items():
            given[stratum] += step
    return {stratum: count for stratum, count in given.items() if count}


def strata_of(label: str) -> list[Stratum]:
    """The strata of a label, the lowest confidence first."""
    edges = (0.0, *BANDS, 1.0)
    return [Stratum(label, low, high) for low, high in pairwise(edges)]


def _band(column: sa.ColumnElement[float]) -> sa.ColumnElement[int]:
    return sa.case(*((column < edge, place) for place, edge in enumerate(BANDS)), else_=len(BANDS))


def _count(connection: sa.Connection, job_id: int, labels: Sequence[str]) -> dict[Stratum, _Counted]:
    of = {label: strata_of(label) for label in labels}
    found: dict[Stratum, _Counted] = {stratum: _Counted() for strata in of.values() for stratum in strata}
    ids = connection.execute(sa.select(chunks.c.id).where(chunks.c.job_id == job_id).order_by(chunks.c.id)).scalars()
    band = _band(faces.c.confidence)
    for some in batched(ids.all(), CHUNKS_TOGETHER):
        rows = connection.execute(
            sa.select(faces.c.chunk_id, faces.c.emotion, band.label("band"), sa.func.count().label("number"))
            .where(faces.c.chunk_id.in_(some))
            .group_by(faces.c.chunk_id, faces.c.emotion, band)
            .order_by(faces.c.chunk_id, faces.c.emotion, band)
        )
        for row in rows:
            where = found[of[row.emotion][row.band]]
            where.chunk_ids.append(row.chunk_id)
            where.counts.append(row.number)
    return {stratum: where for stratum, where in found.items() if where.counts}


def _pick(connection: sa.Connection, chunk_id: int, wanted: Sequence[tuple[Stratum, int]]) -> list[Drawn]:
    """The faces at these offsets of their strata within the chunk."""
    inside: dict[Stratum, list[tuple[int, int]]] = {}
    rows = connection.execute(
        sa.select(
            faces.c.image_id, faces.c.number, faces.c.emotion, _band(faces.c.confidence).label("band")
        )
        .where(faces.c.chunk_id == chunk_id)
        .order_by(faces.c.image_id, faces.c.number)
    )  # fmt: skip
    for row in rows:
        inside.setdefault(strata_of(row.emotion)[row.band], []).append((row.image_id, row.number))
    return [Drawn(chunk_id, *inside[stratum][offset], stratum) for stratum, offset in wanted]
