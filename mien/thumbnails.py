"""Small pictures for the pages, kept under ``thumbnails/<job>/`` in the data folder, and deleted with what they show.

A picture has its image's id as its name, so that it can be deleted with the image's row. Who makes one looks afterwards
whether the row is still there; who deletes a row deletes the picture before and after: in one of the two orders nothing
is left. What a crash leaves between is cleared away once an hour.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from mien.database import Database
from mien.hourly import is_due
from mien.schema import images, jobs
from mien.settings import Settings

log = logging.getLogger(__name__)

SHARDS = 256
REFRESH_S = 3600.0
"""The time of use of a picture is written down this often at most."""
KEEP_SHARE = 0.8
"""A cache that has grown too large is cut to this share of what it may hold, the longest unused first."""
ROWS = 500


def thumbnails_root(settings: Settings) -> Path:
    """The folder of all pictures."""
    return settings.data_dir / "thumbnails"


def thumbnails_folder(settings: Settings, public_id: str) -> Path:
    """The folder of a job's pictures."""
    return thumbnails_root(settings) / public_id


def remove_thumbnails(settings: Settings, public_id: str, image_ids: Collection[int] | None = None) -> None:
    """Delete the pictures of these images of a job, or all of them; it is no error if there is none."""
    folder = thumbnails_folder(settings, public_id)
    if image_ids is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for image_id in image_ids if folder.exists() else ():
        for picture in _shard(folder, image_id).glob(f"{image_id}-*.jpg"):
            picture.unlink(missing_ok=True)


def sweep_thumbnails(db: Database, settings: Settings) -> None:
    """Once an hour: delete the pictures whose image or job is gone; a crash may have left them."""
    root = thumbnails_root(settings)
    if not is_due(root):
        return
    for folder in [folder for folder in root.iterdir() if folder.is_dir()]:
        found = {int(picture.name.partition("-")[0]) for picture in folder.glob("*/[0-9]*-*.jpg")}
        gone = found - set(_still_there(db, folder.name, sorted(found)))
        if found and gone == found:
            remove_thumbnails(settings, folder.name)
        else:
            remove_thumbnails(settings, folder.name, gone)


def _still_there(db: Database, public_id: str, image_ids: list[int]) -> Iterator[int]:
    for start in range(0, len(image_ids), ROWS):
        with db.read() as connection:
            yield from connection.execute(
                sa.select(images.c.id)
                .join(jobs, jobs.c.id == images.c.job_id)
                .where(jobs.c.public_id == public_id, images.c.id.in_(image_ids[start : start + ROWS]))
            ).scalars()


class ThumbnailCache:
    """The pictures that are kept, up to so many bytes. Safe to share between threads; made once per process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._most = settings.thumbnail_cache_bytes
        self._lock = threading.Lock()
        self._size: int | None = None  # not known until the first picture is kept
        self._cutting = False

    def get(self, public_id: str, image_id: int, kind: str) -> bytes | None:
        """A picture that is kept, or None."""
        path = self._path(public_id, image_id, kind)
        try:
            with open(path, "rb") as file:
                data = file.read()
                is_old = time.time() - os.fstat(file.fileno()).st_mtime > REFRESH_S
        except OSError:
            return None
        if is_old:
            with suppress(OSError):
                os.utime(path)
        return data

    def put(self, db: Database, public_id: str, image_id: int, kind: str, data: bytes) -> None:
        """Keep a picture, unless its image is gone by now. That it cannot be kept is no error: it is made again."""
        if self._most == 0:
            return
        path = self._path(public_id, image_id, kind)
        new = path.with_name(f".{secrets.token_hex(8)}")
        try:
            thumbnails_root(self._settings).mkdir(mode=0o700, exist_ok=True)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(data)
            new.replace(path)
        except OSError as error:
            new.unlink(missing_ok=True)
            log.warning("a picture of job %s cannot be kept: %s", public_id, error)
            return
        if not list(_still_there(db, public_id, [image_id])):
            path.unlink(missing_ok=True)
            return
        self._count(len(data))

    def _count(self, size: int) -> None:
        with self._lock:
            if self._size is not None:
                self._size += size
            if self._cutting or (self._size is not None and self._size <= self._most):
                return
            self._cutting = True
        threading.Thread(target=self._cut, name="thumbnails", daemon=True).start()

    def _cut(self) -> None:
        """Look how much is kept, and delete what was longest unused if it is too much."""
        kept: list[tuple[float, int, Path]] = []
        size = 0
        try:
            for picture in thumbnails_root(self._settings).glob("*/*/*.jpg"):
                with suppress(OSError):
                    facts = picture.stat()
                    kept.append((facts.st_mtime, facts.st_size, picture))
            size = sum(item[1] for item in kept)
            if size > self._most:
                for _, length, picture in sorted(kept):
                    if size <= KEEP_SHARE * self._most:
                        break
                    picture.unlink(missing_ok=True)
                    size -= length
        finally:
            with self._lock:
                self._size, self._cutting = size, False

    def _path(self, public_id: str, image_id: int, kind: str) -> Path:
        return _shard(thumbnails_folder(self._settings, public_id), image_id) / f"{image_id}-{kind}.jpg"


def _shard(folder: Path, image_id: int) -> Path:
    return folder / f"{image_id % SHARDS:02x}"
