"""Exports in parts, by columns, compressed, and as Parquet: on both databases."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from arro3.io import read_parquet

from mien import parquet
from mien.database import Database
from mien.errors import InvalidRequestError
from mien.export import (
    csv_columns,
    csv_lines,
    errors_csv_lines,
    gzipped,
    images_csv_lines,
    jsonl_lines,
    pages_of,
    part_of,
)
from mien.jobs import Job, get_job
from mien.ledger.commit import ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.parquet import parquet_pieces
from mien.provenance import provenance
from tests.support.ledger import LABELS, bad, expanded_job, face, ok, work_off

Export = Callable[..., Iterator[bytes]]


def answer(image: LeasedImage) -> ImageOutcome:
    if image.path.endswith(b"1.jpg"):
        return ImageOutcome(image.id, "no_face", width=1, height=1)
    if image.path.endswith(b"2.jpg"):
        return bad(image)
    if image.path.endswith(b"3.jpg"):
        return ImageOutcome(image.id, "ok", faces=(face(0.1, 0.8, 0.1), face(0.5, 0.2, 0.3, x=50)))
    return ok(image)


@pytest.fixture
def job(db: Database, tmp_path: Path) -> Job:
    public_id = expanded_job(db, tmp_path / "a", 25)
    work_off(db, answer)
    return get_job(db, "local", public_id)


def parts(db: Database, job: Job, export: Export, limit: int, outcome: str | None = None) -> list[bytes]:
    found, after = [], None
    while True:
        part = part_of(db, job, after=after, limit=limit, outcome=outcome)
        found.append(b"".join(export(db, job, part=part)))
        after = part.next
        if after is None:
            return found


@pytest.mark.parametrize("export", [csv_lines, images_csv_lines, jsonl_lines])
def test_parts_put_together_are_the_whole(db: Database, job: Job, export: Export) -> None:
    whole = b"".join(export(db, job))
    for limit in (1, 7, 25, 100):
        found = parts(db, job, export, limit)
        assert b"".join(found) == whole
        assert len(found) == -(-25 // limit)


def test_parts_of_the_errors_count_errors(db: Database, job: Job) -> None:
    found = parts(db, job, errors_csv_lines, 2, outcome="failed")
    assert [piece.count(b"corrupt") for piece in found] == [2, 1]
    assert b"".join(found) == b"".join(errors_csv_lines(db, job))


def test_a_part_needs_a_cursor_of_this_export(db: Database, job: Job, tmp_path: Path) -> None:
    from mien.results import results_page

    other = get_job(db, "local", expanded_job(db, tmp_path / "b", 3))
    cursor = part_of(db, job, after=None, limit=2).next
    for wrong, code in [
        (part_of(db, other, after=None, limit=1).next, "cursor_of_another_job"),
        (results_page(db, job, limit=2).next, "cursor_of_another_job"),
        ("x", "bad_cursor"),
    ]:
        with pytest.raises(InvalidRequestError) as refused:
            part_of(db, job, after=wrong, limit=2)
        assert (refused.value.code, refused.value.field) == (code, "after")
    assert part_of(db, job, after=cursor, limit=None).until is None


def test_columns_are_chosen_and_ordered(db: Database, job: Job) -> None:
    rows = list(csv.reader(io.StringIO(b"".join(csv_lines(db, job, columns="p_sad,file, emotion")).decode())))
    assert rows[:2] == [["p_sad", "file", "emotion"], ["0.2", "00000.jpg", "happy"]]
    line = b"".join(jsonl_lines(db, job, columns="status,file")).splitlines()[1]
    assert line == b'{"status":"no_face","file":"00001.jpg"}'
    for asked in ("file,nothing", "", "file,file", "p_bored"):
        with pytest.raises(InvalidRequestError) as refused:
            csv_lines(db, job, columns=asked)
        assert refused.value.field == "columns"


def read(pieces: Iterator[bytes]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows, and the metadata under ``mien``."""
    pq = pytest.importorskip("pyarrow.parquet", reason="a second reader of Parquet: pip install pyarrow")
    file = pq.ParquetFile(io.BytesIO(b"".join(pieces)))
    return file.read().to_pylist(), json.loads(file.metadata.metadata[b"mien"])


def test_parquet_holds_the_rows_of_the_csv_and_the_provenance(db: Database, job: Job) -> None:
    table = read_parquet(io.BytesIO(b"".join(parquet_pieces(db, job)))).read_all()
    assert table.schema.names == csv_columns(LABELS)
    rows, facts = read(parquet_pieces(db, job))
    shown = list(csv.DictReader(io.StringIO(b"".join(csv_lines(db, job)).decode())))
    assert len(rows) == len(shown) == table.num_rows
    for row, text in zip(rows, shown, strict=True):
        for name, value in row.items():
            if isinstance(value, float | int):
                assert float(text[name]) == pytest.approx(value, abs=1e-6)
            else:
                assert (value or "") == text[name]
    assert facts == json.loads(json.dumps(provenance(job)))


def test_parquet_in_groups_columns_and_parts(db: Database, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 10)
    pq = pytest.importorskip("pyarrow.parquet")
    whole = b"".join(parquet_pieces(db, job, columns="emotion,face"))
    assert whole == b"".join(parquet_pieces(db, job, columns="emotion,face"))
    file = pq.ParquetFile(io.BytesIO(whole))
    assert (file.metadata.num_row_groups, file.metadata.num_rows) == (3, 28)
    assert file.schema_arrow.names == ["emotion", "face"]
    total = 0
    for piece in parts(db, job, parquet_pieces, 10):
        total += pq.ParquetFile(io.BytesIO(piece)).metadata.num_rows
    assert total == 28
    with pytest.raises(InvalidRequestError):
        parquet_pieces(db, job, columns="nothing")


def test_a_parquet_reader_that_leaves_ends_the_writer(db: Database, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    page = next(pages_of(db, job))
    monkeypatch.setattr(parquet, "pages_of", lambda *_: repeat(page))  # a job without an end: it has to be streamed
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 10)
    pieces = parquet_pieces(db, job)
    next(pieces)
    assert any(thread.name == "parquet" for thread in threading.enumerate())
    pieces.close()  # type: ignore[attr-defined]
    assert not any(thread.name == "parquet" for thread in threading.enumerate())


def test_a_database_that_fails_under_a_parquet_export_is_an_error_not_a_file(
    db: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Iterator[None]:
        raise OSError("gone")
        yield

    monkeypatch.setattr(parquet, "pages_of", fails)
    read_so_far = []
    with pytest.raises(OSError, match="gone"):
        read_so_far.extend(parquet_pieces(db, job))
    assert not b"".join(read_so_far).endswith(b"PAR1")


def test_gzip_is_the_same_every_time(db: Database, job: Job) -> None:
    packed = b"".join(gzipped(csv_lines(db, job), 6))
    assert gzip.decompress(packed) == b"".join(csv_lines(db, job))
    assert packed == b"".join(gzipped(csv_lines(db, job), 6))
    assert packed[4:8] == b"\0\0\0\0"  # no time in the header
