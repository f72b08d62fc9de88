"""The erasure log: what was deleted on request, in a file beside the database, so that no backup brings it back.

One JSON object per line, only ever appended, flushed to the disk before the deletion is acknowledged::

    {"v": 1, "receipt": ID, "at": TIME, "owner": OWNER, "kind": "job", "job": ID}
    {"v": 1, "receipt": ID, "at": TIME, "owner": OWNER, "kind": "images", "job": ID, "files": [HASH, ...]}
    {"v": 1, "receipt": ID, "at": TIME, "owner": OWNER, "kind": "sha256", "sha256": HEX}

It holds no file names: a file is known by :func:`name_hash`. A database that lacks a receipt of the log is older than
that erasure, however it came back; :func:`mien.erasure.apply_again` then opens the receipt anew. Deletions by a job's
own retention are not in it: their clocks go on in a restored database.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from mien.errors import MienError

VERSION = 1
Kind = Literal["job", "images", "sha256"]
KINDS: tuple[Kind, ...] = ("job", "images", "sha256")


class ErasureLogError(MienError):
    """The erasure log cannot be read or written."""

    code = "bad_erasure_log"
    title = "The erasure log cannot be used"


@dataclass(frozen=True)
class Erasure:
    """One deletion on request, by the id of its receipt."""

    receipt: str
    at: dt.datetime
    owner: str
    kind: Kind
    job: str | None = None
    files: tuple[str, ...] = ()
    """:func:`name_hash` of each image, for ``images``."""
    sha256: str | None = None


def name_hash(receipt: str, path: bytes) -> str:
    """What stands in the log for a path: SHA-256 over the receipt's id, NUL and the path, hexadecimal."""
    return hashlib.sha256(receipt.encode() + b"\0" + path).hexdigest()


def record(log: Path, erasures: Sequence[Erasure]) -> None:
    """Append, whole and on the disk when this returns; safe when several processes do it at once.

    Raises:
        ErasureLogError: it cannot be written.
    """
    if not erasures:
        return
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _write(file, b"".join(_line(erasure) for erasure in erasures))
            os.fsync(file.fileno())
        _flush_folder(log.parent)
    except OSError as error:
        raise ErasureLogError(
            f"{log} cannot be written ({os.strerror(error.errno or 0)}); deletions are not safe from a restored backup "
            "until it can (MIEN_ERASURE_LOG)."
        ) from None


def read_log(log: Path) -> Iterator[Erasure]:
    """Every erasure in the order in which they were written, each receipt once; none where there is no log.

    A last line without its end was being written when the power went: it is passed over, as it was never acknowledged.

    Raises:
        ErasureLogError: a line is not one of these, or the file cannot be read.
    """
    seen: set[str] = set()
    try:
        with log.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                if not line.strip():
                    continue  # the end of a line that was cut off
                erasure = _parsed(line, f"{log}, line {number}")
                if erasure is not None and erasure.receipt not in seen:
                    seen.add(erasure.receipt)
                    yield erasure
    except FileNotFoundError:
        return
    except OSError as error:
        raise ErasureLogError(f"{log} cannot be read ({os.strerror(error.errno or 0)}).") from None


def merge_logs(source: Path, target: Path) -> int:
    """Add to ``target`` what only ``source`` holds (a backup's copy of the log); gives how many.

    Raises:
        ErasureLogError: one cannot be read or written.
    """
    known = {erasure.receipt for erasure in read_log(target)}
    missing = [erasure for erasure in read_log(source) if erasure.receipt not in known]
    record(target, missing)
    return len(missing)


def _write(file: BinaryIO, data: bytes) -> None:
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            data = _CUT_OFF + data  # whoever wrote last was cut off in the middle of a line
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


_CUT_OFF = b"\0\n"
"""Ends a line that was cut off so that nobody takes it for a whole one: NUL stands in no JSON."""


def _line(erasure: Erasure) -> bytes:
    facts: dict[str, Any] = {
        "v": VERSION,
        "receipt": erasure.receipt,
        "at": erasure.at.astimezone(dt.UTC).isoformat(),
        "owner": erasure.owner,
        "kind": erasure.kind,
    }
    if erasure.job is not None:
        facts["job"] = erasure.job
    if erasure.kind == "images":
        facts["files"] = list(erasure.files)
    if erasure.sha256 is not None:
        facts["sha256"] = erasure.sha256
    return json.dumps(facts, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes, where: str) -> Erasure | None:
    if b"\0" in line:
        return None  # cut off once, ended by whoever came next
    try:
        facts = json.loads(line)
        if facts["v"] != VERSION:
            raise ErasureLogError(f"{where}: this was written by a newer Mien; install that version first.")
        erasure = Erasure(
            receipt=_text(facts["receipt"]),
            at=dt.datetime.fromisoformat(facts["at"]),
            owner=_text(facts["owner"]),
            kind=facts["kind"],
            job=_text(facts["job"]) if facts["kind"] != "sha256" else None,
            files=tuple(_digest(name) for name in facts["files"]) if facts["kind"] == "images" else (),
            sha256=_digest(facts["sha256"]) if facts["kind"] == "sha256" else None,
        )
        if erasure.kind not in KINDS or erasure.at.tzinfo is None:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise ErasureLogError(
            f"{where}: this is no erasure. Take the file from a copy; without the line what it stood for may be back."
        ) from None
    return erasure


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _digest(value: object) -> str:
    text = _text(value)
    if len(bytes.fromhex(text)) != 32:
        raise ValueError
    return text.lower()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
