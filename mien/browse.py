"""Looking around in the folders that jobs may name: what lies in one, and about how many images."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from mien.errors import SourceError
from mien.paths import path_text
from mien.places import resolve_place
from mien.settings import Settings
from mien.sources import PASSED_OVER, Found, walk

COUNT_S = 0.4
"""Seconds that one look may count images; what is not counted by then is not known."""
MOST_FOLDERS = 500


@dataclass(frozen=True)
class Folder:
    """A folder as a choice: its path, its name for people, and its images with all below it (None: not counted)."""

    path: str
    name: str
    images: int | None


@dataclass(frozen=True)
class Look:
    """What lies in a folder. ``images`` are those in it and below; None where counting takes longer than a look."""

    path: str
    parent: str | None
    folders: tuple[Folder, ...]
    more_folders: bool
    images_here: int
    images: int | None


def allowed_folders(settings: Settings) -> tuple[Folder, ...]:
    """The roots, as choices; object storage is named but not counted."""
    deadline = time.monotonic() + COUNT_S
    found = []
    for root in settings.roots:
        path = str(root)
        counted = _count(os.fsencode(path), deadline) if isinstance(root, Path) else None
        found.append(Folder(path, path_text(os.fsencode(path)), counted))
    return tuple(found)


def look_into(settings: Settings, path: str, *, anywhere: bool = False) -> Look:
    """What lies in a folder inside the roots (or ``anywhere``). Links are not followed, hidden folders not shown.

    Raises:
        SourceError: it is outside the roots, not there, no folder, or object storage.
    """
    if path.startswith("s3://"):
        raise SourceError("Object storage is not browsed; type its address.", code="bad_source", field="path")
    real, _ = resolve_place(settings, path, anywhere=anywhere)
    deadline = time.monotonic() + COUNT_S
    names: list[bytes] = []
    here = 0
    try:
        for item in walk(real, recursive=False):
            here += isinstance(item, Found)
        with os.scandir(real) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(b".")
                and entry.name not in PASSED_OVER
                and _is_text(entry.name)
            )
    except OSError as error:
        raise SourceError(
            f"The folder cannot be read: {os.strerror(error.errno or 0)}.", code="source_unreadable", field="path"
        ) from None
    folders = []
    for name in names[:MOST_FOLDERS]:
        below = os.path.join(real, name)  # noqa: PTH118 - paths are bytes here
        folders.append(Folder(os.fsdecode(below), path_text(name), _count(below, deadline)))
    counts = [folder.images for folder in folders]
    is_known = len(names) <= MOST_FOLDERS and None not in counts
    return Look(
        path=os.fsdecode(real),
        parent=_parent(settings, real, anywhere),
        folders=tuple(folders),
        more_folders=len(names) > MOST_FOLDERS,
        images_here=here,
        images=here + sum(count or 0 for count in counts) if is_known else None,
    )


def _parent(settings: Settings, real: bytes, anywhere: bool) -> str | None:
    """The folder above, if it may be looked into."""
    above = os.path.dirname(real)  # noqa: PTH120 - paths are bytes here
    if above == real:
        return None
    try:
        resolve_place(settings, above, anywhere=anywhere)
    except SourceError:
        return None
    return os.fsdecode(above)


def _count(folder: bytes, deadline: float) -> int | None:
    number = 0
    try:
        for item in walk(folder):
            number += isinstance(item, Found)
            if time.monotonic() > deadline:
                return None
    except OSError:
        return None
    return number


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False  # no address of a page can hold it
    return True
