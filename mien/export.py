"""Results out, in path order, streamed page by page: no transaction is open while a slow client reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.jobs import Job
from mien.paths import exact_name
from mien.results import face_item, faces_of
from mien.schema import images

PAGE = 1000
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_columns(labels: Iterable[str]) -> list[str]:
    """The columns of the results CSV: fixed ones, then one ``p_LABEL`` per label of the model."""
    before = ["file", "face", "x", "y", "width", "height", "face_score", "emotion", "confidence"]
    return [*before, *(f"p_{label}" for label in labels), "status", "error"]


def csv_lines(db: Database, job: Job, *, spreadsheet: bool = False) -> Iterator[bytes]:
    """One row per face, and one row for an image without any; in path order, UTF-8."""

    def rows(image: sa.Row[Any], boxes: list[sa.Row[Any]]) -> Iterator[list[object]]:
        name, error = _text(exact_name(image.path), spreadsheet), _text(image.error_code or "", spreadsheet)
        blank: list[object] = [""] * (8 + len(job.labels))
        if not boxes:
            yield [name, *blank, image.outcome, error]
        for face in boxes:
            place = (face.number, _number(face.x), _number(face.y), _number(face.width), _number(face.height))
            chances = (_number(face.probabilities[label]) for label in job.labels)
            score = "" if face.score is None else _number(face.score)
            yield [name, *place, score, face.emotion, _number(face.confidence), *chances, image.outcome, error]

    yield from _table(db, job, csv_columns(job.labels), rows)


def images_csv_lines(db: Database, job: Job, *, spreadsheet: bool = False) -> Iterator[bytes]:
    """One row per image: its outcome, how many faces, and the emotion of the largest."""

    def rows(image: sa.Row[Any], boxes: list[sa.Row[Any]]) -> Iterator[list[object]]:
        first = boxes[0] if boxes else None
        yield [
            _text(exact_name(image.path), spreadsheet),
            image.outcome,
            image.faces,
            first.emotion if first else "",
            _number(first.confidence) if first else "",
            _number(image.width),
            _number(image.height),
            _number(image.bytes),
            image.format or "",
            image.sha256.hex() if image.sha256 else "",
            _text(image.error_code or "", spreadsheet),
            _text(image.error or "", spreadsheet),
        ]

    columns = ["file", "status", "faces", "emotion", "confidence", "width", "height", "bytes", "format", "sha256"]
    yield from _table(db, job, [*columns, "error", "error_detail"], rows)


def errors_csv_lines(db: Database, job: Job, *, spreadsheet: bool = False) -> Iterator[bytes]:
    """One row per failed image: the code and the sentence."""

    def rows(image: sa.Row[Any], _boxes: list[sa.Row[Any]]) -> Iterator[list[object]]:
        yield [_text(exact_name(image.path), spreadsheet), image.error_code, _text(image.error or "", spreadsheet)]

    yield from _table(db, job, ["file", "error", "detail"], rows, outcome="failed")


def jsonl_lines(db: Database, job: Job) -> Iterator[bytes]:
    """One JSON object per image, with its faces; one line each, in path order."""
    for page in _pages(db, job):
        yield b"".join(_json_line(image, boxes) for image, boxes in page)


def _json_line(image: sa.Row[Any], boxes: list[sa.Row[Any]]) -> bytes:
    item = {
        "file": exact_name(image.path),
        "status": image.outcome,
        "width": image.width,
        "height": image.height,
        "sha256": image.sha256.hex() if image.sha256 else None,
        "faces": [face_item(face) for face in boxes],
        "error": None if image.error_code is None else {"code": image.error_code, "detail": image.error},
    }
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _table(db: Database, job: Job, columns: list[str], rows: Any, outcome: str | None = None) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    # before Python 3.13 a carriage return inside a cell is not quoted unless everything is
    quoting = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    for page in _pages(db, job, outcome):
        for image, boxes in page:
            (quoting if b"\r" in image.path else writer).writerows(rows(image, boxes))
        yield _drained(buffer)
    yield _drained(buffer)


def _drained(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()


def _pages(db: Database, job: Job, outcome: str | None = None) -> Iterator[list[tuple[sa.Row[Any], list[sa.Row[Any]]]]]:
    after: bytes | None = None
    while True:
        statement = sa.select(images).where(images.c.job_id == job.id).order_by(images.c.path).limit(PAGE)
        if after is not None:
            statement = statement.where(images.c.path > after)
        if outcome is not None:
            statement = statement.where(images.c.outcome == outcome)
        with db.read() as connection:
            rows = connection.execute(statement).all()
            boxes = faces_of(connection, [row.id for row in rows if row.faces])
        if not rows:
            return
        yield [(row, boxes.get(row.id, [])) for row in rows]
        after = rows[-1].path


def _text(value: str, spreadsheet: bool) -> str:
    """A text cell; for spreadsheets, one that would run as a formula gets a ``'`` in front."""
    return f"'{value}" if spreadsheet and value.lstrip(" ").startswith(FORMULA_STARTS) else value


def _number(value: float | int | None) -> str:
    """Plain decimal notation, no trailing zeros: 0.5, 12, never 1e-05."""
    if value is None:
        return ""
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text
