"""What the readers of archives share: a stream that takes bytes back, the watch for bombs, the checks of names."""

from __future__ import annotations

import zlib
from typing import Protocol

from mien.errors import UnprocessableError
from mien.paths import path_text

BLOCK = 1 << 16
FLOOD_FROM = 64 << 20
FLOOD_RATIO = 200
"""An archive that has unpacked to more than ``FLOOD_FROM`` bytes and ``FLOOD_RATIO`` times its own size is a bomb."""


class Reader(Protocol):
    """Anything that gives bytes: up to ``size`` of them, none at the end."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""


class ArchiveError(UnprocessableError):
    """An archive cannot be unpacked: what is wrong with it, at which entry."""

    code = "archive_damaged"
    title = "The archive cannot be unpacked"


class Source:
    """A reader with a memory of a few bytes: what was read too far can be given back."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ahead = b""
        self.taken = 0
        """Bytes taken so far."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, none at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            data = self._reader.read(size)
        self.taken += len(data)
        return data

    def up_to(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end."""
        data = self.read(size) if size else b""
        while len(data) < size and (more := self.read(size - len(data))):
            data += more
        return data

    def exactly(self, size: int) -> bytes:
        """``size`` bytes.

        Raises:
            ArchiveError: the archive ends before.
        """
        data = self.up_to(size)
        if len(data) < size:
            raise ends_early()
        return data

    def give_back(self, data: bytes) -> None:
        """Read ``data`` again next time."""
        self._ahead = data + self._ahead
        self.taken -= len(data)

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes."""
        while size:
            size -= len(self.exactly(min(size, BLOCK)))

    def drain(self) -> None:
        """Read to the end."""
        while self.read(BLOCK):
            pass


class Flood:
    """Watches how much comes out of how little."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._unpacked = 0

    def add(self, size: int) -> None:
        """Count ``size`` unpacked bytes.

        Raises:
            ArchiveError: ``archive_bomb``.
        """
        self._unpacked += size
        if self._unpacked > FLOOD_FROM and self._unpacked > FLOOD_RATIO * max(self._source.taken, 1):
            raise ArchiveError(
                f"The archive unpacks to more than {FLOOD_RATIO} times its size; it is refused as a bomb. "
                "Send the images without packing them.",
                code="archive_bomb",
            )


def safe_path(path: bytes) -> bytes:
    """The path of an entry, without a leading ``./``.

    Raises:
        ArchiveError: ``archive_unsafe_path``, it is absolute or leads upwards.
    """
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    if path.startswith(b"/") or b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise ArchiveError(
            f"The archive holds the path {path_text(path)!r}; only paths below its own top are taken. Pack it again "
            "from inside the folder.",
            code="archive_unsafe_path",
        )
    return path


def ends_early() -> ArchiveError:
    """The bytes end in the middle."""
    return ArchiveError("The archive ends too early; it was cut off. Send it again.", code="archive_damaged")


def is_link(path: bytes) -> ArchiveError:
    """An entry is a link."""
    return ArchiveError(
        f"{path_text(path)!r} is a link, and links are not followed. Pack the files themselves (tar -h, zip without "
        "-y).",
        code="archive_link",
    )


class Gunzip:
    """The bytes within a gzip stream, of one member or several."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(31)
        self._flood = Flood(source)
        self._begun = self._full = False

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, none at the end.

        Raises:
            ArchiveError: ``archive_damaged``, ``archive_bomb``.
        """
        while True:
            if self._inflate.eof:
                self._source.give_back(self._inflate.unused_data)
                self._inflate, self._begun = zlib.decompressobj(31), False
            # after a full answer more may stand ready without any further input
            packed = self._inflate.unconsumed_tail or (b"" if self._full else self._source.read(BLOCK))
            if not packed and not self._full:
                if self._begun:
                    raise ends_early()
                return b""
            if not self._begun and not packed.strip(b"\0"):
                continue  # tar pads its files to whole blocks, and so do some tapes
            self._begun = True
            try:
                data = self._inflate.decompress(packed, size)
            except zlib.error:
                raise ArchiveError("The archive's compressed data is damaged; send it again.") from None
            self._full = len(data) == size
            if data:
                self._flood.add(len(data))
                return data
