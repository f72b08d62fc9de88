"""Where a job's images lie, a folder or object storage: one way to check it, walk it, and read an image from it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mien.errors import ImageError, SourceError, UnavailableError
from mien.objects import StoreAwayError, bucket_of, is_objects, lies_below, object_store, store_identity
from mien.paths import path_text
from mien.settings import Root, Settings
from mien.sources import Found, Skipped, folder_identity, is_source, judge_name, open_image, resolve_folder, walk


def resolve_place(settings: Settings, path: str | bytes, *, anywhere: bool = False) -> tuple[bytes, str]:
    """Check the folder, or the address in object storage, that a request names; gives it as stored and its identity.

    ``anywhere``: outside the roots, too; the owner of the data folder may.

    Raises:
        SourceError: ``source_missing``, ``source_not_a_folder``, ``source_outside_roots``, ``source_unreadable``.
    """
    raw = os.fsencode(path)
    if not is_objects(raw):
        folders = tuple(root for root in settings.roots if isinstance(root, Path))
        return resolve_folder(raw, (Path("/"),) if anywhere else folders)
    bucket = bucket_of(raw)
    if not anywhere and not any(lies_below(bucket, root) for root in settings.roots):
        raise SourceError(
            f"{path_text(raw)!r} is outside what this Mien may read ({_shown(settings.roots)}). Add it to MIEN_ROOTS.",
            code="source_outside_roots",
            field="source.path",
        )
    try:
        object_store(settings).check(bucket)
    except StoreAwayError as away:
        raise SourceError(
            f"{path_text(bucket.url)!r} cannot be read: {away.reason}.", code="source_unreadable", field="source.path"
        ) from None
    return bucket.url, store_identity(settings, raw)


def _shown(roots: Sequence[Root]) -> str:
    return ", ".join(path_text(os.fsencode(root)) for root in roots) or "none is configured"


def place_trouble(settings: Settings, path: bytes, identity: str | None, *, ask: bool = True) -> str | None:
    """Why a job's source is not there just now, as a notice; None where it is.

    ``ask``: also ask object storage, over the network. Without, only its name and server are compared.
    """
    shown = path_text(path)
    if not is_objects(path):
        if is_source(folder_identity(path), identity):
            return None
        return (
            f"The folder {shown} is not there just now, or another one is in its place. The job waits; "
            "mount it again and it goes on by itself."
        )
    if identity and store_identity(settings, path) != identity:
        return (
            f"{shown} was listed on another server than this process reads from (MIEN_S3_ENDPOINT_URL). "
            "The job waits until it is the same again."
        )
    if ask:
        try:
            object_store(settings).check(bucket_of(path))
        except StoreAwayError as away:
            return away_notice(path, away)
    return None


def away_notice(path: bytes, away: StoreAwayError) -> str:
    """The notice of a job whose object storage cannot be used."""
    return f"{path_text(path)} cannot be read just now: {away.reason}. The job waits and goes on by itself."


def images_of(
    settings: Settings, path: bytes, *, recursive: bool, include: Sequence[str], exclude: Sequence[str]
) -> Iterator[Found | Skipped]:
    """Every image of a place, as a stream; the same names are passed over in both kinds.

    Raises:
        OSError: the folder itself cannot be read.
        StoreAwayError: the storage went away in the midst.
    """
    if not is_objects(path):
        yield from walk(path, recursive=recursive, include=include, exclude=exclude)
        return
    wanted = [os.fsencode(pattern) for pattern in include]
    unwanted = [os.fsencode(pattern) for pattern in exclude]
    for item in object_store(settings).listing(bucket_of(path), recursive=recursive):
        reason = judge_name(item.key, wanted, unwanted)
        if reason == "":
            yield Found(item.key, item.etag, item.size)
        elif reason is not None:
            yield Skipped(item.key, reason)


def read_image(
    settings: Settings, path: bytes, relative: bytes, *, etag: str | None = None, limit: int | None = None
) -> bytes:
    """One image's bytes, from either kind of place, never more than ``limit`` (MIEN_MAX_FILE_BYTES).

    ``relative``: the image's path below the place (its stored name, where it is an upload); ``etag``: as listed.

    Raises:
        ImageError: it is missing, changed, too large or cannot be read.
        UnavailableError: the object storage does not answer just now.
    """
    most = settings.max_file_bytes if limit is None else limit
    if is_objects(path):
        try:
            return object_store(settings).read(bucket_of(path), relative, etag=etag, limit=most).result()
        except StoreAwayError as away:
            raise UnavailableError(f"The image cannot be read just now: {away.reason}.", code="source_away") from None
    with os.fdopen(open_image(path, relative), "rb") as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise ImageError("unreadable", f"The file cannot be read: {os.strerror(error.errno or 0)}.") from None
    if len(data) > most:
        raise ImageError("file_too_large", f"The file has more than {most:,} bytes (MIEN_MAX_FILE_BYTES).")
    return data
