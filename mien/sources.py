"""Where images come from: a folder inside the allowed roots, walked as a stream, opened without a way out of it."""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mien.errors import ImageError, SourceError
from mien.paths import path_text

IMAGE_ENDINGS = frozenset(b".jpg .jpeg .jpe .jfif .png .webp .avif .bmp .dib .gif .tif .tiff .heic .heif .mpo".split())
"""Files are images by their ending, in any case."""
PASSED_OVER = frozenset({b"__MACOSX", b"Thumbs.db", b"desktop.ini", b"@eaDir"})


@dataclass(frozen=True)
class Found:
    """One image of a walk: its path in bytes relative to the source, with ``/``.

    Of an object also ``etag``, the tag of its content, and ``size`` in bytes, both as listed.
    """

    path: bytes
    etag: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that is no image by its ending or pattern, or a folder that could not be read (``reason`` says which)."""

    path: bytes
    reason: str  # not_an_image, excluded, not_a_file, link_to_folder, unreadable_folder


def resolve_folder(path: str | bytes, roots: Sequence[Path]) -> tuple[bytes, str]:
    """Check a folder named in a request and give its real path and its identity (``device:inode``).

    Raises:
        SourceError: ``source_missing``, ``source_not_a_folder``, ``source_outside_roots``, ``source_unreadable``.
    """
    raw = os.fsencode(path)
    shown = path_text(raw)
    if b"\0" in raw or not raw.startswith(b"/"):
        raise SourceError(
            f"{shown!r} is not an absolute path; name the folder from / on.", code="source_missing", field="source.path"
        )
    real = os.path.realpath(raw)
    real_roots = [os.path.realpath(os.fsencode(root)) for root in roots]
    if not any(is_inside(real, root) for root in real_roots):
        allowed = ", ".join(path_text(os.fsencode(root)) for root in roots) or "none is configured"
        raise SourceError(
            f"{shown!r} is outside the folders that this Mien may read ({allowed}). "
            "Add it to MIEN_ROOTS, or start `mien up FOLDER`.",
            code="source_outside_roots",
            field="source.path",
        )
    try:
        facts = os.stat(real)
    except OSError as error:
        raise SourceError(
            f"There is no folder {shown!r} on the server ({os.strerror(error.errno or 0)}).",
            code="source_missing",
            field="source.path",
        ) from None
    if not stat.S_ISDIR(facts.st_mode):
        raise SourceError(f"{shown!r} is not a folder.", code="source_not_a_folder", field="source.path")
    if not os.access(real, os.R_OK | os.X_OK):
        raise SourceError(f"Mien may not read the folder {shown!r}.", code="source_unreadable", field="source.path")
    return real, _identity(facts)


def folder_identity(path: bytes) -> str | None:
    """``device:inode`` of the folder now, or None if it is not there: how a worker sees that a share is unmounted."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return _identity(facts) if stat.S_ISDIR(facts.st_mode) else None


def is_source(identity: str | None, wanted: str | None) -> bool:
    """Whether the folder that is there now is the one ``wanted``; where that is not known (a restored job), any is."""
    return identity is not None and (not wanted or identity == wanted)


def _identity(facts: os.stat_result) -> str:
    # network, FUSE and overlay file systems get another device number on each host and at each mount
    device = facts.st_dev if os.major(facts.st_dev) else "mounted"
    return f"{device}:{facts.st_ino}"


def is_inside(path: bytes, root: bytes) -> bool:
    """Whether the real path ``path`` is ``root`` or lies below it."""
    return path == root or path.startswith(root.rstrip(b"/") + b"/")


def walk(
    root: bytes, *, recursive: bool = True, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[Found | Skipped]:
    """Walk a folder as a stream, never holding more than one folder's open handles and the names of its sub-folders.

    Patterns are shell patterns against the relative path or the file's name. ``include`` replaces the test by ending;
    ``exclude`` comes after it. Dot-files, ``._*``, ``__MACOSX`` and ``Thumbs.db`` are passed over in silence. A folder
    that is swapped for a link while its turn has not come is not followed: each is opened step by step from the root.
    """
    wanted = [os.fsencode(pattern) for pattern in include]
    unwanted = [os.fsencode(pattern) for pattern in exclude]
    folders = [b""]
    while folders:
        folder = folders.pop()
        below: list[bytes] = []
        try:
            with _folder_beneath(root, folder) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if _is_hidden(name):
                        continue
                    path = folder + b"/" + name if folder else name
                    if entry.is_dir(follow_symlinks=False):
                        if recursive:
                            below.append(path)
                    else:
                        yield _judged(entry, path, wanted, unwanted)
        except OSError:
            if not folder:
                raise
            yield Skipped(folder, "unreadable_folder")
        folders.extend(sorted(below, reverse=True))


@contextmanager
def _folder_beneath(root: bytes, relative: bytes) -> Iterator[int]:
    """The descriptor of a folder below ``root``, no component of whose path is a link."""
    at = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        for part in relative.split(b"/") if relative else ():
            below = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def judge_name(path: bytes, wanted: Sequence[bytes], unwanted: Sequence[bytes]) -> str | None:
    """Why a path is skipped by its name alone; empty: it is an image; None: it is passed over in silence."""
    if any(_is_hidden(part) for part in path.split(b"/")):
        return None
    if wanted:
        if not _matches(path, wanted):
            return "excluded"
    elif os.path.splitext(path)[1].lower() not in IMAGE_ENDINGS:
        return "not_an_image"
    return "excluded" if _matches(path, unwanted) else ""


def _is_hidden(name: bytes) -> bool:
    return name.startswith(b".") or name in PASSED_OVER


def _judged(entry: os.DirEntry[str], path: bytes, wanted: list[bytes], unwanted: list[bytes]) -> Found | Skipped:
    if reason := judge_name(path, wanted, unwanted):
        return Skipped(path, reason)
    if entry.is_symlink():
        try:
            if stat.S_ISDIR(entry.stat().st_mode):
                return Skipped(path, "link_to_folder")
        except OSError:
            return Found(path)  # a broken link is an image that cannot be read; its row will say so
        return Found(path)
    return Found(path) if entry.is_file(follow_symlinks=False) else Skipped(path, "not_a_file")


def _matches(path: bytes, patterns: Sequence[bytes]) -> bool:
    name = path.rpartition(b"/")[2]
    return any(fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(name, p) for p in patterns)


def open_image(root: bytes, relative: bytes, identity: str | None = None) -> int:
    """Open a regular file below ``root`` for reading and give its descriptor; no link on the way may lead out of it.

    Every component is opened relative to the one before, without following links, so that nothing can be swapped
    between a check and the use. A link that stays inside the root is followed by its real path in the same manner.
    With ``identity`` (see :func:`folder_identity`) the root has to be that very folder, looked at in the same step: so
    an image is ``missing`` only from the folder that the job named, never because a share was away for a moment.

    Raises:
        ImageError: ``missing``, ``unreadable``, ``outside_root``, ``not_a_file``, ``path_too_long``, ``source_away``.
    """
    try:
        return _open_beneath(root, relative, identity)
    except OSError as error:
        # a link on the way shows as ELOOP (the last component) or ENOTDIR (a folder)
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise _image_error(error) from None
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, relative))
    if not is_inside(real, real_root):
        raise ImageError("outside_root", "A link leads out of the source folder; links that lead out are refused.")
    try:
        return _open_beneath(real_root, os.path.relpath(real, real_root), identity)
    except OSError as error:
        raise _image_error(error) from None


def _open_beneath(root: bytes, relative: bytes, identity: str | None) -> int:
    *folders, name = relative.split(b"/")
    if not name or any(part in (b"", b".", b"..") for part in (*folders, name)):
        raise ImageError("outside_root", "The path does not stay inside the source folder.")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    at = _open_root(root, identity)
    try:
        for folder in folders:
            below = os.open(folder, flags | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        # O_NONBLOCK: opening a pipe that nobody writes to must not hang
        descriptor = os.open(name, flags | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError("not_a_file", "This is not a regular file.")
    return descriptor


def _open_root(root: bytes, identity: str | None) -> int:
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError:
        if identity is None:
            raise
        raise _source_away() from None
    if identity is not None and _identity(os.fstat(descriptor)) != identity:
        os.close(descriptor)
        raise _source_away()
    return descriptor


def _source_away() -> ImageError:
    return ImageError("source_away", "The source folder is not there just now, or another one is in its place.")


def _image_error(error: OSError) -> ImageError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ImageError("missing", "The file is not there any more.")
    if error.errno == errno.ENAMETOOLONG:
        return ImageError("path_too_long", "The path is longer than the system allows.")
    if error.errno in (errno.ENXIO, errno.EISDIR):
        return ImageError("not_a_file", "This is not a regular file.")
    return ImageError("unreadable", f"The file cannot be opened: {os.strerror(error.errno or 0)}.")
