"""Tallies: what stands in each chunk, folder by folder, kept in the transactions that change the chunk's images.

Summaries add them up, and filters pass over chunks by them, so that neither reads every row of a large job. Each image
with an outcome is counted in exactly one tally.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from mien.schema import faces, images, jobs, tallies

HISTOGRAM_BINS = 20
ENDED = ("ok", "no_face", "failed", "cancelled")
_INT = "I"  # four bytes everywhere that CPython runs


class Counted(NamedTuple):
    """One image with its outcome, and its faces as (emotion, confidence)."""

    chunk_id: int
    path: bytes
    outcome: str
    faces: Sequence[tuple[str, float]]


def write_tallies(connection: sa.Connection, job_id: int, labels: Sequence[str], counted: Iterable[Counted]) -> None:
    """Write the tallies of chunks that have none."""
    place = {label: number for number, label in enumerate(labels)}
    found: dict[tuple[int, bytes], dict[str, Any]] = {}
    vectors: dict[tuple[int, bytes], array[int]] = {}
    for image in counted:
        key = (image.chunk_id, folder_of(image.path))
        row = found.get(key)
        if row is None:
            found[key] = row = {"first_path": image.path, "last_path": image.path, **dict.fromkeys(ENDED, 0)}
            vectors[key] = array(_INT, bytes(array(_INT).itemsize * (len(labels) + HISTOGRAM_BINS)))
        row["first_path"], row["last_path"] = min(row["first_path"], image.path), max(row["last_path"], image.path)
        row[image.outcome] += 1
        for emotion, confidence in image.faces:
            vectors[key][place[emotion]] += 1
            vectors[key][len(labels) + bin_of(confidence)] += 1
    if found:
        connection.execute(
            tallies.insert(),
            [
                {
                    "job_id": job_id,
                    "chunk_id": chunk_id,
                    "folder": folder,
                    "faces": sum(vectors[chunk_id, folder][: len(labels)]),
                    "counts": _packed(vectors[chunk_id, folder]),
                    **row,
                }
                for (chunk_id, folder), row in found.items()
            ],
        )


def recount(connection: sa.Connection, job_id: int, chunk_ids: Collection[int]) -> None:
    """Make the tallies of these chunks of the job anew from their rows: after images were moved, ended or deleted."""
    inside = list(chunk_ids)
    connection.execute(tallies.delete().where(tallies.c.job_id == job_id, tallies.c.chunk_id.in_(inside)))
    labels = connection.execute(sa.select(jobs.c.labels).where(jobs.c.id == job_id)).scalar_one()
    boxes: dict[int, list[tuple[str, float]]] = {}
    for face in connection.execute(
        sa.select(faces.c.image_id, faces.c.emotion, faces.c.confidence).where(faces.c.chunk_id.in_(inside))
    ):
        boxes.setdefault(face.image_id, []).append((face.emotion, face.confidence))
    rows = connection.execute(
        sa.select(images.c.id, images.c.chunk_id, images.c.path, images.c.outcome).where(
            images.c.chunk_id.in_(inside), images.c.outcome.in_(ENDED)
        )
    )
    write_tallies(
        connection, job_id, labels, (Counted(r.chunk_id, r.path, r.outcome, boxes.get(r.id, ())) for r in rows)
    )


def sum_counts(packed: Iterable[bytes], labels: Sequence[str]) -> tuple[Mapping[str, int], list[int]]:
    """(faces per label, faces per bin of confidence) over the ``counts`` of tallies that share ``labels``."""
    everything = array(_INT)
    everything.frombytes(b"".join(packed))
    if sys.byteorder == "big":
        everything.byteswap()
    width = len(labels) + HISTOGRAM_BINS
    sums = [sum(everything[column::width]) for column in range(width)]
    return dict(zip(labels, sums, strict=False)), sums[len(labels) :]


def bin_of(confidence: float) -> int:
    """The bin of a confidence: 20 of 0.05 each, the last one with 1 itself."""
    return min(max(int(confidence * HISTOGRAM_BINS), 0), HISTOGRAM_BINS - 1)


def folder_of(path: bytes) -> bytes:
    """The folder of a path relative to the source, without a slash at the end; empty for the source itself."""
    return path.rpartition(b"/")[0]


def _packed(counts: array[int]) -> bytes:
    if sys.byteorder == "big":
        counts = counts[:]
        counts.byteswap()
    return counts.tobytes()
