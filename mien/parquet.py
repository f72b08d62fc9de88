"""Results as Parquet, row group by row group, with the provenance in the file's metadata; the columns of the CSV.

The writer (arro3, the Rust implementation) pulls batches and pushes bytes, while a server wants to pull bytes; so it
runs in a thread of its own, at most ``AHEAD`` pieces ahead of whoever reads.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any, cast

from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import write_parquet

from mien import __version__
from mien.database import Database
from mien.export import WHOLE, Part, choose_columns, csv_columns, pages_of, result_rows
from mien.jobs import Job
from mien.provenance import provenance

ROWS_PER_GROUP = 50_000
METADATA_KEY = "mien"
COMPRESSION = "zstd(3)"
AHEAD = 4
_TEXT = ("file", "emotion", "status", "error")


def parquet_pieces(db: Database, job: Job, *, columns: str | None = None, part: Part = WHOLE) -> Iterator[bytes]:
    """The file, piece by piece; two exports of a finished job give the same bytes.

    Raises:
        InvalidRequestError: ``unknown_column``; at once, before any piece.
    """
    available = csv_columns(job.labels)
    chosen = choose_columns(available, columns)
    schema = Schema([Field(name, _type(name), nullable=name not in ("file", "status")) for name in chosen])
    facts = json.dumps(provenance(job), ensure_ascii=False)
    return _streamed(schema, _batches(db, job, part, available, schema), {METADATA_KEY: facts})


def _type(column: str) -> DataType:
    if column in _TEXT:
        return DataType.utf8()
    return DataType.int32() if column == "face" else DataType.float64()


def _batches(db: Database, job: Job, part: Part, available: list[str], schema: Schema) -> Iterator[RecordBatch]:
    places = [available.index(name) for name in schema.names]
    for page in pages_of(db, job, part):
        rows = [
            (*before, *chances, status, error)
            for image, boxes in page
            for *before, chances, status, error in result_rows(job, image, boxes)
        ]
        values = list(zip(*rows, strict=True))
        arrays = [Array(values[place], type=schema.field(number)) for number, place in enumerate(places)]
        yield RecordBatch.from_arrays(arrays, schema=schema)


class _Pipe:
    """A file for the writer, an iterator for the reader. Once ``closed`` nothing blocks the writer any more."""

    def __init__(self) -> None:
        self.pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
        self.closed = threading.Event()
        self.broken: BaseException | None = None

    def write(self, piece: bytes) -> int:
        """Called by the writer; waits while the reader is behind. After an error the file gets no end."""
        if self.broken is None:
            self.put(bytes(piece))
        return len(piece)

    def seek(self, _offset: int, _whence: int = 0) -> int:
        """Asked for by the writer, never called: a Parquet file is written from front to end."""
        raise OSError("a stream cannot seek")

    def flush(self) -> None:
        """Called by the writer."""

    def put(self, item: bytes | BaseException | None) -> None:
        """Hand something to the reader, unless it has left."""
        while not self.closed.is_set():
            with contextlib.suppress(queue.Full):
                self.pieces.put(item, timeout=0.5)
                return


def _streamed(schema: Schema, batches: Iterator[RecordBatch], facts: dict[str, str]) -> Iterator[bytes]:
    pipe = _Pipe()

    def pulled() -> Iterator[RecordBatch]:
        # an error, or a reader that left, ends the table here: the writer finishes what it has, in peace
        try:
            for batch in batches:
                if pipe.closed.is_set():
                    return
                yield batch
        except BaseException as error:
            pipe.broken = error

    def write() -> None:
        try:
            write_parquet(
                RecordBatchReader.from_batches(schema, pulled()),
                cast(Any, pipe),
                compression=COMPRESSION,
                max_row_group_size=ROWS_PER_GROUP,
                key_value_metadata=facts,
                created_by=f"mien {__version__}",
            )
        except BaseException as error:
            pipe.broken = pipe.broken or error
        pipe.put(pipe.broken)

    def read() -> Iterator[bytes]:
        writer = threading.Thread(target=write, name="parquet", daemon=True)
        writer.start()
        try:
            while (piece := pipe.pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            pipe.closed.set()
            writer.join()

    return read()
