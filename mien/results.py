"""Results as pages, within a job and across jobs, in the order in which they were written.

A page is found chunk by chunk along the commit numbers: each chunk is first asked, by an index or by its tallies,
whether anything in it fits. So a rare answer among a million rows costs one look per chunk, not per row, and no plan of
the database decides how long a page takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.job_filter import ALL_JOBS, JobFilter
from mien.jobs import Job
from mien.paging import Page, decode_cursor, encode_cursor
from mien.paths import exact_name
from mien.schema import chunks, faces, images, jobs, tallies

MAX_LIMIT = 1000
ACROSS = "results"
"""The scope of cursors across jobs."""
MOST_CHUNKS = 256
MOST_IMAGES = 16_384
"""Chunks, and images in them, that are looked at together."""
COMMITS_TOGETHER = 4096
"""Small jobs are asked together, up to so many chunks; a larger job by itself."""


@dataclass(frozen=True)
class ResultFilter:
    """Which images; None: any. The filters on faces keep an image when one of its faces meets all of them."""

    emotion: str | None = None
    outcome: str | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    prefix: str | None = None
    min_faces: int | None = None
    max_faces: int | None = None

    @property
    def path_range(self) -> tuple[bytes, bytes | None] | None:
        """(first, first no more) of the paths with the prefix."""
        if not self.prefix:
            return None
        low = self.prefix.encode("utf-8", "surrogateescape")
        return low, _after_prefix(low)

    @property
    def face(self) -> sa.ColumnElement[bool] | None:
        """The condition on a face."""
        parts: list[sa.ColumnElement[bool]] = []
        if self.emotion is not None:
            parts.append(faces.c.emotion == self.emotion)
        if self.min_confidence is not None:
            parts.append(faces.c.confidence >= self.min_confidence)
        if self.max_confidence is not None:
            parts.append(faces.c.confidence <= self.max_confidence)
        return sa.and_(*parts) if parts else None


ANY = ResultFilter()


def results_page(
    db: Database, job: Job, *, after: str | None = None, limit: int = 100, wanted: ResultFilter = ANY
) -> Page[dict[str, Any]]:
    """Images of a job with their faces, in the order in which they were committed.

    ``next`` is always given: whoever follows a running job goes on from there, misses nothing and sees nothing twice
    (a retried image comes again, later; the later row replaces the earlier).

    Raises:
        InvalidRequestError: ``bad_cursor``, ``cursor_of_another_job``.
    """
    commit, position = (0, -1) if after is None else decode_cursor(after, job.public_id, 2)
    with db.read() as connection:
        commits = connection.execute(sa.select(jobs.c.commits).where(jobs.c.id == job.id)).scalar_one_or_none() or 0
        found = _found(connection, [_Span(job.id, commits)], (job.id, commit, position), wanted, limit + 1)
        items = _items(connection, found[:limit])
    last = found[:limit][-1] if found else None
    return Page(
        items=items,
        next=encode_cursor(job.public_id, last.commit_number, last.position) if last else after,
        has_more=len(found) > limit,
    )


def results_across(
    db: Database,
    owner: str,
    *,
    among: JobFilter = ALL_JOBS,
    after: str | None = None,
    limit: int = 100,
    wanted: ResultFilter = ANY,
) -> Page[dict[str, Any]]:
    """Images of the owner's jobs, each with its ``job``: by job, oldest first, then as within a job.

    Raises:
        InvalidRequestError: ``bad_cursor``, ``cursor_of_another_job``.
    """
    start = (0, 0, -1) if after is None else _three(decode_cursor(after, ACROSS, 3))
    may_fit = [jobs.c.commits > 0, jobs.c.status != "deleting", jobs.c.id >= start[0]]
    if wanted.face is not None:
        may_fit.append(jobs.c.faces > 0)
    if wanted.outcome is not None:
        may_fit.append(jobs.c[wanted.outcome] > 0)
    with db.read() as connection:
        rows = connection.execute(
            sa.select(jobs.c.id, jobs.c.public_id, jobs.c.commits)
            .where(*among.conditions(owner), *may_fit)
            .order_by(jobs.c.id)
        ).all()
        names = {row.id: row.public_id for row in rows}
        found = _found(connection, [_Span(row.id, row.commits) for row in rows], start, wanted, limit + 1)
        items = _items(connection, found[:limit])
    last = found[:limit][-1] if found else None
    return Page(
        items=[{"job": names[match.job_id], **item} for match, item in zip(found, items, strict=False)],
        next=encode_cursor(ACROSS, last.job_id, last.commit_number, last.position) if last else after,
        has_more=len(found) > limit,
    )


def faces_of(connection: sa.Connection, image_ids: list[int]) -> dict[int, list[sa.Row[Any]]]:
    """The faces of these images, in their order."""
    found: dict[int, list[sa.Row[Any]]] = {}
    if image_ids:
        statement = sa.select(faces).where(faces.c.image_id.in_(image_ids)).order_by(faces.c.image_id, faces.c.number)
        for row in connection.execute(statement):
            found.setdefault(row.image_id, []).append(row)
    return found


def image_item(row: sa.Row[Any], boxes: Sequence[sa.Row[Any]]) -> dict[str, Any]:
    """One image, a row of ``images``, with its faces."""
    return {
        "file": exact_name(row.path),
        "outcome": row.outcome,
        "width": row.width,
        "height": row.height,
        "bytes": row.bytes,
        "format": row.format,
        "sha256": None if row.sha256 is None else row.sha256.hex(),
        "cached": row.cached,
        "error": None if row.error_code is None else {"code": row.error_code, "detail": row.error},
        "faces": [face_item(face) for face in boxes],
        "image_id": row.id,  # for pages; the API names images by their file
    }


def face_item(face: sa.Row[Any]) -> dict[str, Any]:
    """One face as every answer of the API gives it."""
    return {
        "face": face.number,
        "x": face.x,
        "y": face.y,
        "width": face.width,
        "height": face.height,
        "score": face.score,
        "emotion": face.emotion,
        "confidence": face.confidence,
        "probabilities": face.probabilities,
    }


# finding --------------------------------------------------------------------------------------------------------------

Place = tuple[int, int, int]
"""(job's id, commit number, position): where a page begins, exclusively."""


@dataclass(frozen=True)
class _Span:
    """A job whose chunks are looked at, with the number of its commits so far."""

    job_id: int
    commits: int


@dataclass(frozen=True)
class _Match:
    image_id: int
    job_id: int
    commit_number: int
    position: int


def _found(
    connection: sa.Connection, spans: Sequence[_Span], after: Place, wanted: ResultFilter, count: int
) -> list[_Match]:
    """The first ``count`` images behind ``after`` that fit, in order."""
    found: list[_Match] = []
    for group in _grouped(spans):
        for some in _fitting_chunks(connection, group, after, wanted, count):
            found += _fitting_images(connection, some, after, wanted)
            if len(found) >= count:
                return found[:count]
    return found


def _grouped(spans: Sequence[_Span]) -> Iterator[list[_Span]]:
    group: list[_Span] = []
    for span in spans:
        if group and sum(other.commits for other in group) + span.commits > COMMITS_TOGETHER:
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _fitting_chunks(
    connection: sa.Connection, group: Sequence[_Span], after: Place, wanted: ResultFilter, count: int
) -> Iterator[Sequence[sa.Row[Any]]]:
    """The chunks of these jobs in which something fits, in order, some at a time: of a large job first few."""
    statement = (
        sa.select(chunks.c.id, chunks.c.job_id, chunks.c.commit_number, chunks.c.images)
        .where(chunks.c.commit_number.is_not(None), *(test == 1 for test in _tests(wanted)))
        .order_by(chunks.c.job_id, chunks.c.commit_number)
    )
    most = 2 * count if wanted == ANY else MOST_IMAGES
    if len(group) > 1:
        yield from _cut(connection.execute(statement.where(_behind(group, after))).all(), most)
        return
    here, commit, size = group[0].job_id, after[1] if after[0] == group[0].job_id else 0, 8
    while True:
        rest = statement.where(chunks.c.job_id == here, chunks.c.commit_number >= commit)
        rows = connection.execute(rest.limit(size)).all()
        yield from _cut(rows, most)
        if len(rows) < size:
            return
        commit, size = rows[-1].commit_number + 1, min(size * 4, MOST_CHUNKS)


def _behind(group: Sequence[_Span], after: Place) -> sa.ColumnElement[bool]:
    """The chunks of these jobs from the place on."""
    later = chunks.c.job_id.in_([span.job_id for span in group if span.job_id > after[0]])
    return sa.or_(sa.and_(chunks.c.job_id == after[0], chunks.c.commit_number >= after[1]), later)


def _cut(rows: Sequence[Any], most: int) -> Iterator[Sequence[sa.Row[Any]]]:
    """Pieces of at most so many images, and chunks."""
    piece: list[sa.Row[Any]] = []
    for row in rows:
        if piece and (len(piece) == MOST_CHUNKS or sum(other.images for other in piece) + row.images > most):
            yield piece
            piece = []
        piece.append(row)
    if piece:
        yield piece


def _tests(wanted: ResultFilter) -> Iterator[sa.ScalarSelect[int]]:
    """What a chunk is asked: each 1 where something fits. Scalar subqueries stay what they are in every plan."""
    one = sa.select(sa.literal(1)).limit(1)
    if wanted.face is not None:
        yield one.where(faces.c.chunk_id == chunks.c.id, wanted.face).correlate(chunks).scalar_subquery()
    if wanted.outcome is not None:
        here = (images.c.chunk_id == chunks.c.id, images.c.outcome == wanted.outcome)
        yield one.where(*here).correlate(chunks).scalar_subquery()
    if wanted.min_faces is not None and wanted.min_faces > 1:
        # images with more faces than one, in a chunk that has no more faces than images with faces, are none
        many = tallies.c.faces >= tallies.c.ok + (wanted.min_faces - 1)
        beside = (tallies.c.job_id == chunks.c.job_id, tallies.c.chunk_id == chunks.c.id, many)
        yield one.where(*beside).correlate(chunks).scalar_subquery()
    if wanted.path_range is not None:
        low, high = wanted.path_range
        same = [tallies.c.job_id == chunks.c.job_id, tallies.c.chunk_id == chunks.c.id, tallies.c.last_path >= low]
        if high is not None:
            same.append(tallies.c.first_path < high)
        yield one.where(*same).correlate(chunks).scalar_subquery()


def _fitting_images(
    connection: sa.Connection, some: Sequence[sa.Row[Any]], after: Place, wanted: ResultFilter
) -> list[_Match]:
    order = {row.id: (row.job_id, row.commit_number) for row in some}
    statement = sa.select(images.c.id, images.c.chunk_id, images.c.position).where(images.c.chunk_id.in_(list(order)))
    if wanted.outcome is not None:
        statement = statement.where(images.c.outcome == wanted.outcome)
    if wanted.min_faces is not None:
        statement = statement.where(images.c.faces >= wanted.min_faces)
    if wanted.max_faces is not None:
        statement = statement.where(images.c.faces <= wanted.max_faces)
    if wanted.path_range is not None:
        low, high = wanted.path_range
        statement = statement.where(images.c.path >= low)
        if high is not None:
            statement = statement.where(images.c.path < high)
    if wanted.face is not None:
        inside = sa.select(faces.c.image_id).where(faces.c.chunk_id.in_(list(order)), wanted.face)
        statement = statement.where(images.c.id.in_(inside))
    matches = (
        _Match(row.id, *order[row.chunk_id], row.position) for row in connection.execute(statement)
    )  # fmt: skip
    behind = [match for match in matches if (match.job_id, match.commit_number, match.position) > after]
    return sorted(behind, key=lambda match: (match.job_id, match.commit_number, match.position))


def _items(connection: sa.Connection, found: Sequence[_Match]) -> list[dict[str, Any]]:
    ids = [match.image_id for match in found]
    rows = {row.id: row for row in connection.execute(sa.select(images).where(images.c.id.in_(ids)))} if ids else {}
    boxes = faces_of(connection, [row.id for row in rows.values() if row.faces])
    return [_as_item(rows[match.image_id], match, boxes.get(match.image_id, [])) for match in found]


def _as_item(row: sa.Row[Any], match: _Match, boxes: list[sa.Row[Any]]) -> dict[str, Any]:
    return {
        **image_item(row, boxes),
        "sequence": [match.commit_number, match.position],
    }


def _after_prefix(prefix: bytes) -> bytes | None:
    """The smallest byte string above every one that begins with ``prefix``."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _three(position: tuple[int, ...]) -> Place:
    job, commit, place = position
    return job, commit, place
