"""Results out, in path order, streamed page by page: no transaction is open while a slow client reads.

Every export can be cut into parts by :func:`part_of`: the bytes of the parts, put together, are the bytes of the whole,
so that a download goes on where it broke off.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.csv_text import CsvText, cell_number, cell_text
from mien.database import Database
from mien.errors import InvalidRequestError
from mien.jobs import Job
from mien.paging import decode_cursor, encode_cursor
from mien.paths import exact_name
from mien.results import face_item, faces_of
from mien.schema import images

PAGE = 1000
MAX_PART = 1_000_000
IMAGE_COLUMNS = (
    "file", "status", "faces", "emotion", "confidence", "width", "height", "bytes", "format", "sha256", "error",
    "error_detail",
)  # fmt: skip
ERROR_COLUMNS = ("file", "error", "detail")
JSON_FIELDS = ("file", "status", "width", "height", "sha256", "faces", "error")

Image = sa.Row[Any]
Rows = Callable[[Image, list[sa.Row[Any]]], Iterable[list[object]]]


@dataclass(frozen=True)
class Part:
    """The images of an export with ``after < path <= until``; ``next`` is the cursor of the part that follows."""

    after: bytes | None = None
    until: bytes | None = None
    next: str | None = None


WHOLE = Part()


def part_of(db: Database, job: Job, *, after: str | None, limit: int | None, outcome: str | None = None) -> Part:
    """The part of at most ``limit`` images (all that are left where it is None) that begins behind the cursor.

    Raises:
        InvalidRequestError: ``bad_cursor`` (also for one whose image was deleted since), ``cursor_of_another_job``.
    """
    scope = f"{job.public_id}/export"
    paths = sa.select(images.c.path).where(images.c.job_id == job.id)
    with db.read() as connection:
        start = None
        if after is not None:
            (image_id,) = decode_cursor(after, scope, 1)
            start = connection.execute(paths.where(images.c.id == image_id)).scalar_one_or_none()
            if start is None:
                raise InvalidRequestError(
                    "The image at which `after` stands was deleted since; begin the export anew.",
                    code="bad_cursor",
                    field="after",
                )
        if limit is None:
            return Part(start)
        rest = paths.order_by(images.c.path)
        if start is not None:
            rest = rest.where(images.c.path > start)
        if outcome is not None:
            rest = rest.where(images.c.outcome == outcome)
        end = connection.execute(rest.offset(limit - 1).limit(2)).scalars().all()
        if len(end) < 2:
            return Part(start)
        last = connection.execute(
            sa.select(images.c.id).where(images.c.job_id == job.id, images.c.path == end[0])
        ).scalar_one()
    return Part(start, end[0], encode_cursor(scope, last))


def choose_columns(available: Sequence[str], asked: str | None) -> list[str]:
    """The columns named in ``asked``, separated by commas and in that order; all of them where it is None.

    Raises:
        InvalidRequestError: ``unknown_column``, or one is named twice.
    """
    if asked is None:
        return list(available)
    wanted = [name.strip() for name in asked.split(",")]
    for name in wanted:
        if name not in available:
            raise InvalidRequestError(
                f"`columns`: there is no column {name!r} here; there are {', '.join(available)}.",
                code="unknown_column",
                field="columns",
            )
        if wanted.count(name) > 1:
            raise InvalidRequestError(f"`columns`: {name!r} is named twice.", field="columns")
    return wanted


def csv_columns(labels: Iterable[str]) -> list[str]:
    """The columns of the results CSV: fixed ones, then one ``p_LABEL`` per label of the model."""
    before = ["file", "face", "x", "y", "width", "height", "face_score", "emotion", "confidence"]
    return [*before, *(f"p_{label}" for label in labels), "status", "error"]


def csv_lines(
    db: Database, job: Job, *, spreadsheet: bool = False, columns: str | None = None, part: Part = WHOLE
) -> Iterator[bytes]:
    """One row per face, and one row for an image without any; in path order, UTF-8."""

    def rows(image: Image, boxes: list[sa.Row[Any]]) -> Iterator[list[object]]:
        for name, *numbers, emotion, confidence, chances, status, error in result_rows(job, image, boxes):
            shown = (cell_number(value) for value in (*numbers, confidence, *chances))
            face, x, y, width, height, score, sure, *shares = shown
            yield [
                *(cell_text(name, spreadsheet), face, x, y, width, height, score, emotion or "", sure),
                *(*shares, status, cell_text(error or "", spreadsheet)),
            ]

    return _table(db, job, csv_columns(job.labels), rows, asked=columns, part=part)


def result_rows(job: Job, image: Image, boxes: list[sa.Row[Any]]) -> Iterator[tuple[Any, ...]]:
    """The rows of an image as values: (file, face, x, y, width, height, face score, emotion, confidence,
    probabilities by label, status, error)."""
    name = exact_name(image.path)
    for face in boxes:
        place = (face.number, face.x, face.y, face.width, face.height, face.score, face.emotion, face.confidence)
        yield name, *place, [face.probabilities[label] for label in job.labels], image.outcome, image.error_code
    if not boxes:
        yield name, *[None] * 8, [None] * len(job.labels), image.outcome, image.error_code


def images_csv_lines(
    db: Database, job: Job, *, spreadsheet: bool = False, columns: str | None = None, part: Part = WHOLE
) -> Iterator[bytes]:
    """One row per image: its outcome, how many faces, and the emotion of the largest."""

    def rows(image: Image, boxes: list[sa.Row[Any]]) -> Iterator[list[object]]:
        first = boxes[0] if boxes else None
        yield [
            cell_text(exact_name(image.path), spreadsheet),
            image.outcome,
            image.faces,
            first.emotion if first else "",
            cell_number(first.confidence) if first else "",
            cell_number(image.width),
            cell_number(image.height),
            cell_number(image.bytes),
            image.format or "",
            image.sha256.hex() if image.sha256 else "",
            cell_text(image.error_code or "", spreadsheet),
            cell_text(image.error or "", spreadsheet),
        ]

    return _table(db, job, IMAGE_COLUMNS, rows, asked=columns, part=part)


def errors_csv_lines(
    db: Database, job: Job, *, spreadsheet: bool = False, columns: str | None = None, part: Part = WHOLE
) -> Iterator[bytes]:
    """One row per failed image: the code and the sentence."""

    def rows(image: Image, _boxes: list[sa.Row[Any]]) -> Iterator[list[object]]:
        yield [
            cell_text(exact_name(image.path), spreadsheet),
            image.error_code,
            cell_text(image.error or "", spreadsheet),
        ]

    return _table(db, job, ERROR_COLUMNS, rows, asked=columns, part=part, outcome="failed")


def jsonl_lines(db: Database, job: Job, *, columns: str | None = None, part: Part = WHOLE) -> Iterator[bytes]:
    """One JSON object per image, with its faces; one line each, in path order."""
    fields = choose_columns(JSON_FIELDS, columns)

    def pieces() -> Iterator[bytes]:
        for page in pages_of(db, job, part):
            yield b"".join(_json_line(image, boxes, fields) for image, boxes in page)

    return pieces()


def gzipped(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    """``pieces`` as a gzip stream; equal bytes give equal bytes (no time, no name in the header)."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def pages_of(
    db: Database, job: Job, part: Part = WHOLE, outcome: str | None = None
) -> Iterator[list[tuple[Image, list[sa.Row[Any]]]]]:
    """The images of a part with their faces, in path order, some at a time."""
    after = part.after
    while True:
        statement = sa.select(images).where(images.c.job_id == job.id).order_by(images.c.path).limit(PAGE)
        if after is not None:
            statement = statement.where(images.c.path > after)
        if part.until is not None:
            statement = statement.where(images.c.path <= part.until)
        if outcome is not None:
            statement = statement.where(images.c.outcome == outcome)
        with db.read() as connection:
            rows = connection.execute(statement).all()
            boxes = faces_of(connection, [row.id for row in rows if row.faces])
        if not rows:
            return
        yield [(row, boxes.get(row.id, [])) for row in rows]
        after = rows[-1].path


def _json_line(image: Image, boxes: list[sa.Row[Any]], fields: Sequence[str]) -> bytes:
    item = {
        "file": exact_name(image.path),
        "status": image.outcome,
        "width": image.width,
        "height": image.height,
        "sha256": image.sha256.hex() if image.sha256 else None,
        "faces": [face_item(face) for face in boxes],
        "error": None if image.error_code is None else {"code": image.error_code, "detail": image.error},
    }
    chosen = {name: item[name] for name in fields}
    return json.dumps(chosen, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _table(
    db: Database,
    job: Job,
    available: Sequence[str],
    rows: Rows,
    *,
    asked: str | None,
    part: Part,
    outcome: str | None = None,
) -> Iterator[bytes]:
    columns = choose_columns(available, asked)  # checked now, before the answer begins
    picked = [available.index(name) for name in columns]

    def pieces() -> Iterator[bytes]:
        text = CsvText()
        if part.after is None:
            text.add([columns])
        for page in pages_of(db, job, part, outcome):
            for image, boxes in page:
                picks = ([row[place] for place in picked] for row in rows(image, boxes))
                text.add(picks, has_returns=b"\r" in image.path)
            yield text.take()
        yield text.take()

    return pieces()
