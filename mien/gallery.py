"""Images in the order of their confidence, page by page, and single images with their neighbours: what galleries show.

An image stands where its least (or most) certain face stands, among those that the filter keeps. Each label's faces lie
in order in an index, and the few orders are merged: a page costs a look into it per label, wherever it is and however
large the job. A small folder's faces are sorted instead. A filter that the index does not hold (a large folder, the
number of faces) may have to pass over many faces; a request looks at so many of them at most, and gives a short page
that says where to go on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.errors import NotFoundError
from mien.jobs import Job
from mien.paging import Page, decode_cursor, encode_cursor
from mien.results import ANY, ResultFilter, faces_of, image_item
from mien.schema import faces, images, tallies

MILLION = 1_000_000
"""Confidences are kept with six digits; cursors hold them as whole millionths."""
MOST_LOOKED_AT = 4000
"""Faces that one request passes over at most."""
MOST_SORTED = 20_000
"""Faces of a folder that are sorted for each page, rather than looked for among all of the job's."""
KEY = (faces.c.confidence, faces.c.image_id, faces.c.number)
Key = tuple[float, int, int]
"""(confidence, image's id, face's number): the place of a face in the order."""


def page_by_confidence(
    db: Database,
    job: Job,
    *,
    most_certain_first: bool = False,
    after: str | None = None,
    limit: int = 60,
    wanted: ResultFilter = ANY,
) -> Page[dict[str, Any]]:
    """Images with faces, the least certain first (or the most certain), as items of :func:`mien.results.results_page`.

    A page may be short, or empty, though ``has_more``: go on with ``next``.

    Raises:
        InvalidRequestError: ``bad_cursor``, ``cursor_of_another_job``.
    """
    scope = f"{job.public_id} {'certain' if most_certain_first else 'doubtful'}"
    place: Key | None = None
    if after is not None:
        millionths, image_id, number = decode_cursor(after, scope, 3)
        place = (millionths / MILLION, image_id, number)
    labels = [wanted.emotion] if wanted.emotion is not None else list(job.labels)
    with db.read() as connection:
        order = _Order(job.id, wanted, most_certain_first, _is_small(connection, job, wanted))
        items: list[dict[str, Any]] = []
        looked_at = 0
        has_more = True
        while has_more and len(items) < limit and looked_at < MOST_LOOKED_AT:
            batch, has_more = order.batch(connection, labels, place, 2 * limit)
            looked_at += len(batch)
            for key, item in order.images(connection, batch):
                if len(items) == limit:
                    has_more = True
                    break
                place = key
                if item is not None:
                    items.append(item)
    position = (round(place[0] * MILLION), place[1], place[2]) if place else None
    return Page(items=items, next=encode_cursor(scope, *position) if position else after, has_more=has_more)


def image_of(db: Database, job: Job, image_id: int) -> dict[str, Any]:
    """One image of the job, as an item of :func:`mien.results.results_page`.

    Raises:
        NotFoundError: ``unknown_image``.
    """
    with db.read() as connection:
        row = connection.execute(
            sa.select(images).where(images.c.job_id == job.id, images.c.id == image_id)
        ).one_or_none()
        if row is None:
            raise NotFoundError("There is no such image in this job.", code="unknown_image")
        return image_item(row, faces_of(connection, [image_id]).get(image_id, []))


@dataclass(frozen=True)
class Neighbours:
    """The images before and after one in the order of paths: their ids, None at the ends."""

    before: int | None
    after: int | None


def neighbours(db: Database, job: Job, image_id: int) -> Neighbours:
    """The images beside this one by path."""
    path = sa.select(images.c.path).where(images.c.job_id == job.id, images.c.id == image_id).scalar_subquery()
    mine = sa.select(images.c.id).where(images.c.job_id == job.id).limit(1)
    with db.read() as connection:
        return Neighbours(
            before=connection.execute(mine.where(images.c.path < path).order_by(images.c.path.desc())).scalar(),
            after=connection.execute(mine.where(images.c.path > path).order_by(images.c.path)).scalar(),
        )


def first_images(db: Database, jobs: Iterable[Job], count: int) -> dict[int, list[int]]:
    """A few images with faces of each job, by the job's id: to show what it is about."""
    found: dict[int, list[int]] = {}
    with db.read() as connection:
        for job in jobs:
            if job.counts["ok"]:
                found[job.id] = list(
                    connection.execute(
                        sa.select(images.c.id).where(images.c.job_id == job.id, images.c.outcome == "ok").limit(count)
                    ).scalars()
                )
    return found


@dataclass(frozen=True)
class _Order:
    job_id: int
    wanted: ResultFilter
    descending: bool
    by_path: bool
    """Whether the faces are looked up by their images' paths, and sorted then."""

    def batch(
        self, connection: sa.Connection, labels: Sequence[str], place: Key | None, count: int
    ) -> tuple[list[Key], bool]:
        """The next faces over all labels, up to ``count`` of them, and whether there may be more."""
        if self.by_path:
            merged = self._of_folder(connection, place, count + 1)
        else:
            streams = [self._of_label(connection, label, place, count + 1) for label in labels]
            merged = list(heapq.merge(*streams, reverse=self.descending))
        return merged[:count], len(merged) > count

    def images(self, connection: sa.Connection, keys: Sequence[Key]) -> Iterator[tuple[Key, dict[str, Any] | None]]:
        """For each face in order its image, or None where the image stands elsewhere or does not fit."""
        ids = sorted({key[1] for key in keys})
        statement = sa.select(images).where(images.c.id.in_(ids))
        if self.wanted.min_faces is not None:
            statement = statement.where(images.c.faces >= self.wanted.min_faces)
        if self.wanted.max_faces is not None:
            statement = statement.where(images.c.faces <= self.wanted.max_faces)
        statement = statement.where(*_path_conditions(self.wanted))
        rows = {row.id: row for row in connection.execute(statement)} if ids else {}
        boxes = faces_of(connection, sorted(rows))
        for key in keys:
            row = rows.get(key[1])
            stands_here = row is not None and key == self._place_of(key[1], boxes.get(key[1], []))
            yield key, image_item(row, boxes[key[1]]) if row is not None and stands_here else None

    def _of_label(self, connection: sa.Connection, label: str, place: Key | None, count: int) -> list[Key]:
        statement = sa.select(*KEY).where(faces.c.job_id == self.job_id, faces.c.emotion == label)
        return self._in_order(connection, statement, place, count)

    def _of_folder(self, connection: sa.Connection, place: Key | None, count: int) -> list[Key]:
        inside = sa.select(images.c.id).where(images.c.job_id == self.job_id, *_path_conditions(self.wanted))
        statement = sa.select(*KEY).where(faces.c.image_id.in_(inside))
        if self.wanted.emotion is not None:
            statement = statement.where(faces.c.emotion == self.wanted.emotion)
        return self._in_order(connection, statement, place, count)

    def _in_order(
        self, connection: sa.Connection, statement: sa.Select[Any], place: Key | None, count: int
    ) -> list[Key]:
        if self.wanted.min_confidence is not None:
            statement = statement.where(faces.c.confidence >= self.wanted.min_confidence)
        if self.wanted.max_confidence is not None:
            statement = statement.where(faces.c.confidence <= self.wanted.max_confidence)
        if place is not None:
            here, there = sa.tuple_(*KEY), sa.tuple_(*map(sa.literal, place))
            statement = statement.where(here < there if self.descending else here > there)
        ordered = statement.order_by(*(c.desc() if self.descending else c.asc() for c in KEY)).limit(count)
        return [(row.confidence, row.image_id, row.number) for row in connection.execute(ordered)]

    def _place_of(self, image_id: int, boxes: Sequence[sa.Row[Any]]) -> Key | None:
        """Where the image stands: at the first of its faces that the filter keeps."""
        kept = [(box.confidence, image_id, box.number) for box in boxes if self._keeps(box)]
        return (max(kept) if self.descending else min(kept)) if kept else None

    def _keeps(self, box: sa.Row[Any]) -> bool:
        wanted = self.wanted
        return not (
            (wanted.emotion is not None and box.emotion != wanted.emotion)
            or (wanted.min_confidence is not None and box.confidence < wanted.min_confidence)
            or (wanted.max_confidence is not None and box.confidence > wanted.max_confidence)
        )


def _path_conditions(wanted: ResultFilter) -> list[sa.ColumnElement[bool]]:
    if wanted.path_range is None:
        return []
    low, high = wanted.path_range
    return [images.c.path >= low, *([images.c.path < high] if high is not None else [])]


def _is_small(connection: sa.Connection, job: Job, wanted: ResultFilter) -> bool:
    """Whether the filter's folder holds so few faces that all of them can be sorted for each page."""
    if wanted.path_range is None:
        return False
    low, high = wanted.path_range
    here = [tallies.c.job_id == job.id, tallies.c.last_path >= low]
    if high is not None:
        here.append(tallies.c.first_path < high)
    held = connection.execute(sa.select(sa.func.sum(tallies.c.faces)).where(*here)).scalar_one()
    return int(held or 0) <= MOST_SORTED
