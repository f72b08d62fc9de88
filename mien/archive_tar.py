"""A tar as a stream: ustar, pax and GNU long names. Strict where the standard library's reader ends in silence.

``tarfile`` takes a damaged header in the middle for the end of the archive: images would be lost without a word.
Layout of the headers: POSIX.1-2017, pax interchange format; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mien.archive_stream import ArchiveError, Source, ends_early, is_link, safe_path
from mien.paths import path_text

RECORD = 512
MAX_EXTENSION = 1 << 16
"""Longest pax or long-name record, which alone is held in memory."""
_FILES = (b"0", b"\0", b"7")
_LINKS = (b"1", b"2")


@dataclass
class TarEntry:
    """One file."""

    path: bytes
    left: int
    _source: Source = field(repr=False)

    def read(self, size: int, /) -> bytes:
        """The next bytes of the file."""
        if not self.left:
            return b""
        data = self._source.read(min(size, self.left))
        if not data:
            raise ends_early()
        self.left -= len(data)
        return data


def tar_entries(source: Source) -> Iterator[TarEntry]:
    """The files of a tar.

    Raises:
        ArchiveError: see :func:`mien.archives.entries`.
    """
    first = True
    pax: dict[bytes, bytes] = {}
    while True:
        header = source.exactly(RECORD) if not first else source.up_to(RECORD)
        if not header.strip(b"\0") and len(header) == RECORD:
            source.drain()
            return
        _check_sum(header, first)
        first = False
        kind, size = header[156:157], _size(header[124:136])
        if kind in (b"x", b"L"):
            extension = _extension(source, size)
            pax |= _records(extension) if kind == b"x" else {b"path": extension.rstrip(b"\0")}
            continue
        if kind in (b"g", b"K"):
            _extension(source, size)
            continue
        path = pax.get(b"path") or _name(header)
        if b"size" in pax:
            size = _decimal(pax[b"size"])
        if kind == b"S" or any(name.startswith(b"GNU.sparse") for name in pax):
            raise ArchiveError(
                f"{path_text(path)!r} is stored as a sparse file; pack it without --sparse.", code="archive_unsupported"
            )
        pax = {}
        if kind in _LINKS:
            raise is_link(path)
        if kind in _FILES and not path.endswith(b"/"):
            entry = TarEntry(safe_path(path), size, source)
            yield entry
            source.skip(entry.left)
        else:  # a folder, a device, a pipe, a label: nothing that could be an image
            source.skip(size)
        source.skip(-size % RECORD)


def _check_sum(header: bytes, first: bool) -> None:
    if len(header) == RECORD:
        try:
            told = int(header[148:156].split(b"\0")[0].strip() or b"0", 8)
        except ValueError:
            told = -1
        if told == sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
            return
    if first:
        raise ArchiveError("This is no archive that Mien reads: a zip, a tar or a gzipped tar.", code="not_an_archive")
    raise ArchiveError("The archive is damaged: a header in it does not add up. Send it again.")


def _size(number: bytes) -> int:
    """A size in octal digits, or in base 256 where the first bit is set (GNU, for 8 GiB and more)."""
    if number[0] & 0x80:
        return int.from_bytes(bytes([number[0] & 0x7F]) + number[1:], "big")
    try:
        size = int(number.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        size = -1
    if size < 0:
        raise ArchiveError("The archive is damaged: a size in it is no number.")
    return size


def _decimal(number: bytes) -> int:
    if not number.isdigit() or len(number) > 18:
        raise ArchiveError("The archive is damaged: a size in it is no number.")
    return int(number)


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _extension(source: Source, size: int) -> bytes:
    if size > MAX_EXTENSION:
        raise ArchiveError(f"The archive holds a name or note of {size} bytes.", code="archive_unsupported")
    data = source.exactly(size)
    source.skip(-size % RECORD)
    return data


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header, each ``LENGTH KEY=VALUE`` and a newline."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        length = int(digits) if digits.isdigit() else 0
        record = data[space + 1 : at + length]
        if not len(digits) + 1 < length <= len(data) - at or not record.endswith(b"\n") or b"=" not in record:
            raise ArchiveError("The archive is damaged: a pax header in it cannot be read.")
        key, _, value = record[:-1].partition(b"=")
        found[key] = value
        at += length
    return found
