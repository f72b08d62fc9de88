"""A chunk's results written in few statements: on PostgreSQL COPY and one UPDATE, on SQLite one statement a row.

The rows are the same to the last digit on both. Row by row, PostgreSQL and its driver spent more time on the statements
than on the rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from mien.errors import UnavailableError
from mien.schema import faces, images

if TYPE_CHECKING:
    from mien.ledger.commit import ImageOutcome

FACE_COLUMNS = (
    "image_id", "number", "job_id", "chunk_id", "x", "y", "width", "height", "score", "emotion", "confidence",
    "probabilities",
)  # fmt: skip
_COPY_FACES = f"COPY faces ({', '.join(FACE_COLUMNS)}) FROM STDIN"
NULL = "\\N"


class KeptFace(NamedTuple):
    """A face as it is kept: rounded. ``top`` is the place of its most probable label."""

    image_id: int
    number: int
    box: tuple[float, float, float, float]
    score: float | None
    top: int
    probabilities: tuple[float, ...]

    @property
    def confidence(self) -> float:
        """The probability of the most probable label."""
        return self.probabilities[self.top]

    def values(self, labels: Sequence[str]) -> dict[str, Any]:
        """What is kept and shown of it, by name."""
        return {
            **dict(zip(("x", "y", "width", "height"), self.box, strict=True)),
            "score": self.score,
            "emotion": labels[self.top],
            "confidence": self.confidence,
            "probabilities": dict(zip(labels, self.probabilities, strict=True)),
        }


def write_faces(
    connection: sa.Connection, job_id: int, chunk_id: int, labels: Sequence[str], rows: Sequence[KeptFace]
) -> None:
    """Write the faces of a chunk.

    Raises:
        UnavailableError: the connection to the database was lost.
    """
    if not rows:
        return
    if connection.dialect.name != "postgresql":
        connection.execute(faces.insert(), [_face_row(row, job_id, chunk_id, labels) for row in rows])
        return
    probabilities = _template(labels)
    emotions = [_escaped(label) for label in labels]
    lines = [
        f"{row.image_id}\t{row.number}\t{job_id}\t{chunk_id}\t{row.box[0]}\t{row.box[1]}\t{row.box[2]}\t{row.box[3]}\t"
        f"{NULL if row.score is None else row.score}\t{emotions[row.top]}\t{row.confidence}\t"
        f"{probabilities % row.probabilities}\n"
        for row in rows
    ]
    _copy(connection, "".join(lines).encode())


def _face_row(row: KeptFace, job_id: int, chunk_id: int, labels: Sequence[str]) -> dict[str, Any]:
    place = {"image_id": row.image_id, "number": row.number, "job_id": job_id, "chunk_id": chunk_id}
    return place | row.values(labels)


def _template(labels: Sequence[str]) -> str:
    """The JSON object of a face's probabilities, as COPY takes it, with a place for each number."""
    parts = (f"{_escaped(json.dumps(label)).replace('%', '%%')}: %r" for label in labels)
    return "{" + ", ".join(parts) + "}"


def _escaped(text: str) -> str:
    """A text as COPY takes it (https://www.postgresql.org/docs/current/sql-copy.html, text format)."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _copy(connection: sa.Connection, lines: bytes) -> None:
    import psycopg  # noqa: PLC0415 - SQLite needs no driver of PostgreSQL

    driver = connection.connection.driver_connection
    if driver is None:
        raise UnavailableError("The connection to the database was lost. Try again in a moment.")
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY_FACES) as copy:
            copy.write(lines)
    except psycopg.OperationalError as error:  # past SQLAlchemy, which tells the others apart
        raise UnavailableError("The connection to the database was lost. Try again in a moment.") from error


_OUTCOME_COLUMNS: Mapping[str, tuple[str, Callable[[ImageOutcome], Any]]] = {
    "outcome": ("text", lambda o: o.outcome),
    "error_code": ("text", lambda o: o.error_code),
    "error": ("text", lambda o: o.error),
    "width": ("integer", lambda o: o.width),
    "height": ("integer", lambda o: o.height),
    "bytes": ("bigint", lambda o: o.file_bytes),
    "format": ("text", lambda o: o.format),
    "sha256": ("bytea", lambda o: o.sha256),
    "faces": ("integer", lambda o: len(o.faces)),
    "cached": ("boolean", lambda o: o.cached),
}
"""Column of an image, its type on PostgreSQL, and where its value comes from."""

_UPDATE_ONE = (
    images.update()
    .where(images.c.id == sa.bindparam("image_id"), images.c.outcome == "pending")
    .values(**{name: sa.bindparam(f"new_{name}") for name in _OUTCOME_COLUMNS})
)
_UPDATE_ALL = sa.text(
    f"UPDATE images SET {', '.join(f'{name} = new.{name}' for name in _OUTCOME_COLUMNS)} "  # noqa: S608 - names of ours
    f"FROM unnest(CAST(:ids AS bigint[]), "
    f"{', '.join(f'CAST(:{name} AS {kind}[])' for name, (kind, _) in _OUTCOME_COLUMNS.items())}) "
    f"AS new(id, {', '.join(_OUTCOME_COLUMNS)}) WHERE images.id = new.id AND images.outcome = 'pending'"
)


def write_outcomes(connection: sa.Connection, outcomes: Sequence[ImageOutcome]) -> None:
    """Give each image that is still pending its outcome."""
    if connection.dialect.name != "postgresql":
        rows = [
            {"image_id": o.image_id} | {f"new_{name}": value(o) for name, (_, value) in _OUTCOME_COLUMNS.items()}
            for o in outcomes
        ]
        connection.execute(_UPDATE_ONE, rows)
        return
    columns = {
        name: array(_ELEMENT.get(kind, str), [value(o) for o in outcomes])
        for name, (kind, value) in _OUTCOME_COLUMNS.items()
    }
    connection.execute(_UPDATE_ALL, {"ids": array(str, [o.image_id for o in outcomes]), **columns})


def array(element: Callable[[Any], str], values: Sequence[Any]) -> str:
    """An array as PostgreSQL reads it: ``{1,NULL,"text"}``; ``element`` writes a value that is not None."""
    return "{" + ",".join(["NULL" if value is None else element(value) for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


_ELEMENT: Mapping[str, Callable[[Any], str]] = {
    "text": _quoted,
    "bytea": lambda value: f'"\\\\x{value.hex()}"',
}
"""How values are written whose own text is not enough."""
