"""Archives read as they arrive: a zip, a tar or a gzipped tar, entry by entry, never held in memory nor on disk.

An archive comes from a stranger. Only its names, sizes and bytes are believed, each checked before the next is read:
no absolute path, no ``..``, no link, no encryption, no entry without an end, no flood out of a few bytes. Whoever reads
the entries stores them under names of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from mien.archive_stream import Gunzip, Reader, Source
from mien.archive_tar import tar_entries
from mien.archive_zip import zip_entries
from mien.sources import IMAGE_ENDINGS, PASSED_OVER


class Entry(Protocol):
    """A file of an archive; read it before the next is asked for, or it is passed over."""

    path: bytes

    def read(self, size: int, /) -> bytes:
        """The next bytes of the file."""


def entries(reader: Reader) -> Iterator[Entry]:
    """The files of an archive in their order; its kind is told by its first bytes.

    Raises:
        ArchiveError: ``not_an_archive``, ``archive_damaged``, ``archive_encrypted``, ``archive_unsupported``,
            ``archive_unsafe_path``, ``archive_link``, ``archive_bomb``.
    """
    source = Source(reader)
    head = source.up_to(4)
    source.give_back(head)
    if head.startswith(b"PK"):
        yield from zip_entries(source)
    elif head.startswith(b"\x1f\x8b"):
        yield from tar_entries(Source(Gunzip(source)))
    else:
        yield from tar_entries(source)


def why_passed_over(path: bytes) -> str | None:
    """Why a file of an archive is no image, by the same rules as in a folder: ``hidden``, ``not_an_image``; or None."""
    *folders, name = path.split(b"/")
    if any(part.startswith(b".") or part in PASSED_OVER for part in (*folders, name)):
        return "hidden"
    dot = name.rfind(b".")
    return None if dot > 0 and name[dot:].lower() in IMAGE_ENDINGS else "not_an_image"
