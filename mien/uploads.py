"""Uploaded files: ``uploads/<job>/`` in the data folder, streamed to the disk under names of ours, gone with the job.

Nobody but Mien's own user may enter (0700). A file is written under its last name at once and counts only when the
ledger has a row for it; what a crash leaves without one is cleared away before the job is expanded.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mien.archive_stream import Reader
from mien.database import Database
from mien.errors import InvalidRequestError, MienError, NoSpaceError, TooLargeError, UnavailableError
from mien.hourly import is_due
from mien.ledger.drafts import (
    Arrived,
    cancelled_with_uploads,
    expire_drafts,
    forget_uploads,
    job_gone,
    known_names,
    paths_after,
    without_job,
)
from mien.ledger.retention import expired_uploads
from mien.ledger.submit import new_public_id
from mien.paths import path_text
from mien.schema import MAX_PATH_BYTES
from mien.settings import Settings
from mien.sources import folder_identity

log = logging.getLogger(__name__)

BLOCK = 1 << 18
FLUSH_THREADS = 8
PATHS_PER_PAGE = 1000
_FULL = (errno.ENOSPC, errno.EDQUOT)


def uploads_root(settings: Settings) -> Path:
    """The folder of all uploads."""
    return settings.data_dir / "uploads"


def uploads_folder(settings: Settings, public_id: str) -> Path:
    """The folder of a job's uploads."""
    return uploads_root(settings) / public_id


@dataclass
class NewFolder:
    """A folder for the uploads of a job that is not written down yet; ``kept`` once it is."""

    public_id: str
    path: bytes
    identity: str
    kept: bool = False


@contextmanager
def new_folder(settings: Settings) -> Iterator[NewFolder]:
    """Make the folder for a new job's uploads; at the end of the block it is deleted again, unless it is ``kept``.

    Raises:
        NoSpaceError, UnavailableError: the disk does not take it.
    """
    public_id = new_public_id()
    folder = uploads_folder(settings, public_id)
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise disk_error(error) from None
    path = os.fsencode(folder)
    made = NewFolder(public_id, path, folder_identity(path) or "")
    try:
        yield made
    finally:
        if not made.kept:
            remove_uploads(settings, public_id)


def remove_uploads(settings: Settings, public_id: str) -> None:
    """Delete every uploaded file of a job; it is no error if there is none.

    Raises:
        OSError: one cannot be deleted.
    """
    for _ in range(3):  # an upload that is just arriving may add a file meanwhile; it is refused at its end
        try:
            shutil.rmtree(uploads_folder(settings, public_id))
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
    shutil.rmtree(uploads_folder(settings, public_id), ignore_errors=True)


def remove_files(folder: Path, stored_names: Iterable[str]) -> None:
    """Delete single uploaded files."""
    for name in stored_names:
        (folder / name).unlink(missing_ok=True)


def remove_strays(db: Database, settings: Settings, job_id: int, public_id: str) -> None:
    """Delete the files of a submitted job that no row knows: a crash cut them off before they were written down."""
    folder = uploads_folder(settings, public_id)
    for shard in sorted(path for path in folder.iterdir() if path.is_dir()):
        names = {f"{shard.name}/{file.name}" for file in shard.iterdir()}
        remove_files(folder, names - known_names(db, job_id, names))


def uploaded_paths(db: Database, job_id: int) -> Iterator[bytes]:
    """The paths of a job's uploads in their order, page by page."""
    after: bytes | None = None
    while page := paths_after(db, job_id, after, PATHS_PER_PAGE):
        yield from page
        after = page[-1]


def sweep_uploads(db: Database, settings: Settings) -> None:
    """Let idle drafts expire; delete uploads whose time has passed, those of cancelled jobs, and what a crash left."""
    if expired := expire_drafts(db, settings.draft_expiry_s):
        log.info("%d drafts expired", expired)
    for job_id, public_id in [*cancelled_with_uploads(db), *expired_uploads(db)]:
        try:
            remove_uploads(settings, public_id)
        except OSError as error:
            log.error("the uploads of job %s cannot be deleted: %s", public_id, error)
        else:
            forget_uploads(db, job_id)
    remove_orphans(db, settings)


def remove_orphans(db: Database, settings: Settings) -> None:
    """Once an hour: delete the folders of jobs that a crash kept from ever being written down."""
    root = uploads_root(settings)
    if not is_due(root):
        return
    old = time.time() - settings.draft_expiry_s
    ids = [folder.name for folder in root.iterdir() if folder.is_dir() and _made_at(folder.name) < old]
    for start in range(0, len(ids), 500):
        for public_id in without_job(db, ids[start : start + 500]):
            log.warning("removing the uploads of job %s, which was never written down", public_id)
            remove_uploads(settings, public_id)


def _made_at(public_id: str) -> float:
    """The time in a public id, in seconds of the epoch; infinity where it is none."""
    try:
        return int(public_id[:11], 16) / 1000
    except ValueError:
        return float("inf")


def checked_path(path: bytes, field: str = "filename") -> bytes:
    """The path a client gives an image, unchanged.

    Raises:
        InvalidRequestError: ``bad_path``: empty, absolute, with ``..``, with NUL, or too long.
    """
    shown = path_text(path[:200])
    if not path:
        why = "An image needs a name: give each part a filename."
    elif len(path) > MAX_PATH_BYTES:
        why = f"The name {shown!r}... has {len(path)} bytes; at most {MAX_PATH_BYTES} are possible."
    elif path.startswith(b"/"):
        why = f"The name {shown!r} is absolute; give one relative to your folder."
    elif b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
        why = f"The name {shown!r} has an empty part, `.`, `..` or NUL in it; give a plain relative one."
    else:
        return path
    raise InvalidRequestError(why, code="bad_path", field=field)


class _Writing:
    """Bytes that this process is about to write: several uploads at once must not each count on the same room."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0

    @contextmanager
    def announced(self, settings: Settings, size: int) -> Iterator[None]:
        """The block writes so many bytes.

        Raises:
            NoSpaceError: they would touch what has to stay free.
        """
        with self._lock:
            check_space(settings, self._bytes + size)
            self._bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._bytes -= size


_writing = _Writing()


def check_space(settings: Settings, needed: int = 0) -> None:
    """Refuse what would fill the disk.

    Raises:
        NoSpaceError: with what is needed, what is free, and what stays free.
    """
    try:
        free = shutil.disk_usage(settings.data_dir).free
    except OSError as error:
        raise disk_error(error) from None
    if free - needed < settings.min_free_bytes:
        raise NoSpaceError(
            f"The server's disk has {free:,} bytes free, of which {settings.min_free_bytes:,} stay free "
            f"(MIEN_MIN_FREE_BYTES); this needs {max(needed, 1):,}. Delete jobs, or ask the operator for room."
        )


def store(settings: Settings, public_id: str, path: bytes, reader: Reader, *, limit: int) -> Arrived:
    """Write a file as it comes, whole or not at all; :func:`flush` then makes it last. ``limit``: most bytes.

    Raises:
        TooLargeError: ``file_too_large``.
        NoSpaceError, UnavailableError: the disk does not take it.
        NotFoundError: the job's folder is gone.
        MienError: whatever the reader raises.
    """
    folder = uploads_folder(settings, public_id)
    token = secrets.token_hex(16)
    name = f"{token[:2]}/{token[2:]}"
    try:
        (folder / token[:2]).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise job_gone() from None
    except OSError as error:
        raise disk_error(error) from None
    digest, size = hashlib.sha256(), 0
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for block in _blocks(reader):
                size += len(block)
                if size > limit:
                    raise _too_large(path, limit)
                digest.update(block)
                with _writing.announced(settings, len(block)):
                    _write(file.fileno(), block)
    except BaseException:
        remove_files(folder, [name])
        raise
    return Arrived(path, name, size, digest.digest())


def flush(settings: Settings, public_id: str, stored_names: Sequence[str]) -> None:
    """Wait until the disk has these files: an upload that was acknowledged survives a power cut.

    Several at once, because waiting for the disk is most of the time that a small file takes.

    Raises:
        NoSpaceError, NotFoundError, UnavailableError: it has not.
    """
    folder = uploads_folder(settings, public_id)
    files = [folder / name for name in stored_names]
    places = [*files, *sorted({file.parent for file in files}), folder]  # a new name lasts with its folder
    with ThreadPoolExecutor(min(len(places), FLUSH_THREADS)) as pool:
        for _ in pool.map(_flush, places):
            pass


def _flush(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise job_gone() from None
    except OSError as error:
        raise disk_error(error) from None


def _blocks(reader: Reader) -> Iterator[bytes]:
    while block := reader.read(BLOCK):
        yield block


def _write(descriptor: int, block: bytes) -> None:
    rest = memoryview(block)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise disk_error(error) from None


def _too_large(path: bytes, limit: int) -> TooLargeError:
    return TooLargeError(
        f"{path_text(path)!r} has more than {limit:,} bytes, the most that one image may have (MIEN_MAX_FILE_BYTES).",
        code="file_too_large",
    )


def disk_error(error: OSError) -> MienError:
    """What went wrong with the disk, as an answer."""
    if error.errno in _FULL:
        return NoSpaceError("The server's disk is full. Delete jobs, or ask the operator for room.")
    return UnavailableError(
        f"The server cannot store uploads just now ({os.strerror(error.errno or 0)}).", code="unavailable"
    )
