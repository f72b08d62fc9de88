"""A zip as a stream, from its local headers on; its directory at the end confirms what was read.

The standard library's reader has to seek, so it would need the whole archive on disk first. Layout: PKWARE APPNOTE
6.3.10, sections 4.3 (records), 4.4.4 (flags) and 4.5.3 (Zip64).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from mien.archive_stream import BLOCK, ArchiveError, Flood, Source, ends_early, is_link, safe_path
from mien.paths import path_text

_LOCAL, _DIRECTORY, _END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_END64, _END64_PLACE, _DESCRIPTOR = b"PK\6\6", b"PK\6\7", b"PK\7\10"
_ENCRYPTED, _HAS_DESCRIPTOR, _UTF8 = 1 << 0, 1 << 3, 1 << 11
_STORED, _DEFLATED = 0, 8
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_FULL32 = 0xFFFFFFFF
_DESCRIPTOR_AND_NEXT = 28
"""The longest descriptor and the signature of what comes next."""
_UNIX_HOSTS = (3, 19)
_FILE_KIND, _LINK = 0o170000, 0o120000


class ZipEntry:
    """One file. ``packed`` is its packed size, None where only the end of the data tells."""

    def __init__(self, source: Source, flood: Flood, path: bytes, method: int, packed: int | None) -> None:
        self.path = path
        self.packed_left = packed
        self.packed = self.size = self.crc = 0
        self._full = False
        self._source = source
        self._flood = flood
        self._inflate = zlib.decompressobj(-15) if method == _DEFLATED else None

    def read(self, size: int, /) -> bytes:
        """The next bytes of the file."""
        data = self._deflated(self._inflate, size) if self._inflate else self._stored(size)
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)
        self._flood.add(len(data))
        return data

    def _stored(self, size: int) -> bytes:
        return self._take(size) if self.packed_left else b""

    def _deflated(self, inflate: zlib._Decompress, size: int) -> bytes:
        while not inflate.eof:
            # after a full answer more may stand ready without any further input
            packed = inflate.unconsumed_tail or (b"" if self._full else self._take(BLOCK))
            try:
                data = inflate.decompress(packed, size)
            except zlib.error:
                raise ArchiveError(f"{path_text(self.path)!r} is damaged within the archive; send it again.") from None
            self._full = len(data) == size
            if inflate.eof:
                self._give_back(inflate.unused_data)
            if data:
                return data
        return b""

    def _take(self, size: int) -> bytes:
        if self.packed_left == 0:
            raise ArchiveError(f"{path_text(self.path)!r} is longer than the archive says.")
        data = self._source.read(size if self.packed_left is None else min(size, self.packed_left))
        if not data:
            raise ends_early()
        self.packed += len(data)
        if self.packed_left is not None:
            self.packed_left -= len(data)
        return data

    def _give_back(self, data: bytes) -> None:
        self._source.give_back(data)
        self.packed -= len(data)
        if self.packed_left is not None:
            self.packed_left += len(data)


def zip_entries(source: Source) -> Iterator[ZipEntry]:
    """The files of a zip.

    Raises:
        ArchiveError: see :func:`mien.archives.entries`.
    """
    flood = Flood(source)
    number = listed = 0
    while (signature := source.exactly(4)) == _LOCAL:
        yield from _entry(source, flood)
        number += 1
    while signature == _DIRECTORY:
        _check_listed(source)
        listed += 1
        signature = source.exactly(4)
    if signature == _END64:
        source.skip(struct.unpack("<Q", source.exactly(8))[0])
        signature = source.exactly(4)
    if signature == _END64_PLACE:
        source.skip(16)
        signature = source.exactly(4)
    if signature != _END:
        if not number:
            raise ArchiveError(
                "This is no archive that Mien reads: a zip, a tar or a gzipped tar.", code="not_an_archive"
            )
        raise ArchiveError("The archive is damaged: something in it is no file. Send it again.")
    if listed != number:
        raise ArchiveError(f"The archive holds {number} files but lists {listed}; it is damaged. Pack it again.")
    source.drain()


def _entry(source: Source, flood: Flood) -> Iterator[ZipEntry]:
    """The file whose local header begins here; nothing for a folder."""
    _, flags, method, _, _, crc, packed, size, name_length, extra_length = struct.unpack("<5H3I2H", source.exactly(26))
    raw, extra = source.exactly(name_length), _extras(source.exactly(extra_length))
    path = _name(raw, flags, extra)
    described = bool(flags & _HAS_DESCRIPTOR)
    if flags & _ENCRYPTED:
        raise ArchiveError(
            f"{path_text(path)!r} is encrypted; pack the images without a password.", code="archive_encrypted"
        )
    is_folder = path.endswith(b"/")
    if _FULL32 in (packed, size):
        size, packed = _sizes64(extra, path, size, packed)
    without_end = method == _STORED and described and not packed and not is_folder and not _is_empty(source)
    if method not in (_STORED, _DEFLATED) or without_end:
        raise ArchiveError(
            f"{path_text(path)!r} is packed in a way that cannot be read as it arrives (method {method}); pack with "
            "`zip -r`, or send a tar.",
            code="archive_unsupported",
        )
    entry = ZipEntry(source, flood, path, method, None if described and method == _DEFLATED else packed)
    if not is_folder:
        entry.path = safe_path(path)
        yield entry
    while entry.read(BLOCK):
        pass
    if entry.packed_left:
        raise ArchiveError(f"{path_text(path)!r} is shorter than the archive says.")
    if described:
        _check_descriptor(source, entry, is_folder)
    elif (entry.crc, entry.size) != (crc, size):
        raise _differs(path)


def _check_descriptor(source: Source, entry: ZipEntry, is_folder: bool) -> None:
    ahead = source.up_to(_DESCRIPTOR_AND_NEXT)
    length = _descriptor(ahead, entry.crc, entry.packed, entry.size)
    source.give_back(ahead[length or 0 :])
    if length is None and not is_folder:
        if len(ahead) < _DESCRIPTOR_AND_NEXT:
            raise ends_early()
        raise _differs(entry.path)


def _descriptor(ahead: bytes, crc: int, packed: int, size: int) -> int | None:
    """The length of what follows the data, if it tells this: with or without a signature, in 32 or in 64 bits."""
    for start in (b"", _DESCRIPTOR):
        for form, mask in (("<3I", _FULL32), ("<I2Q", 0xFFFFFFFFFFFFFFFF)):
            told = start + struct.pack(form, crc, packed & mask, size & mask)
            if ahead.startswith(told) and ahead[len(told) :].startswith(b"PK"):
                return len(told)
    return None


def _is_empty(source: Source) -> bool:
    ahead = source.up_to(_DESCRIPTOR_AND_NEXT)
    source.give_back(ahead)
    return _descriptor(ahead, 0, 0, 0) is not None


def _differs(path: bytes) -> ArchiveError:
    return ArchiveError(
        f"{path_text(path)!r} is damaged within the archive (its checksum differs); send the archive again."
    )


def _check_listed(source: Source) -> None:
    fields = struct.unpack("<6H3I5H2I", source.exactly(42))
    made_by, name_length, extra_length, comment_length, attributes = fields[0], *fields[9:12], fields[14]
    name = source.exactly(name_length)
    source.skip(extra_length + comment_length)
    if made_by >> 8 in _UNIX_HOSTS and (attributes >> 16) & _FILE_KIND == _LINK:
        raise is_link(name)


def _extras(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        kind, length = struct.unpack_from("<2H", data)
        found[kind] = data[4 : 4 + length]
        data = data[4 + length :]
    return found


def _sizes64(extra: dict[int, bytes], path: bytes, size: int, packed: int) -> tuple[int, int]:
    wide = extra.get(_ZIP64, b"")
    values = list(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
    try:
        size = values.pop(0) if size == _FULL32 else size
        packed = values.pop(0) if packed == _FULL32 else packed
    except IndexError:
        raise ArchiveError(f"The archive is damaged: the size of {path_text(path)!r} is missing.") from None
    return size, packed


def _name(raw: bytes, flags: int, extra: dict[int, bytes]) -> bytes:
    """The name in UTF-8: as flagged, or from Info-ZIP's extra field; else as it is, or from the DOS code page."""
    if flags & _UTF8:
        return raw
    beside = extra.get(_UNICODE_PATH, b"")
    if len(beside) > 5 and beside[0] == 1 and beside[1:5] == struct.pack("<I", zlib.crc32(raw)):
        return beside[5:]
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437").encode()
    return raw
