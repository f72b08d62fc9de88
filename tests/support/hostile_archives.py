"""Archives built byte by byte: of a million entries that are never in memory, and with headers that lie."""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator

PER_PIECE = 1000


class Arriving:
    """Gives the pieces of a body as a reader would, at most ``step`` bytes at once."""

    def __init__(self, pieces: Iterable[bytes], step: int = 1 << 20) -> None:
        self._pieces = iter(pieces)
        self._step = step
        self._ahead = b""
        self.taken = 0

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        if not self._ahead:
            self._ahead = next(self._pieces, b"")
        size = min(size, self._step)
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        self.taken += len(data)
        return data


def local(name: bytes, data: bytes, *, told: dict[str, int] | None = None, extra: bytes = b"") -> bytes:
    """A stored file with its local header; ``told`` replaces what the header says (crc, packed, size)."""
    facts = {"crc": zlib.crc32(data), "packed": len(data), "size": len(data)} | (told or {})
    head = struct.pack(
        "<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, facts["crc"], facts["packed"], facts["size"], len(name), len(extra)
    )
    return head + name + extra + data


def listed(name: bytes, data: bytes, at: int = 0) -> bytes:
    """Its entry in the directory."""
    size = len(data)
    return (
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, zlib.crc32(data), size, size, len(name), *[0] * 5, at)
        + name
    )


END = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0, 0, 0)


def zip_of_many(count: int, data: bytes = b"", ending: bytes = b".jpg") -> Iterator[bytes]:
    """A zip of so many files."""
    for pieces in (local, listed):
        for start in range(0, count, PER_PIECE):
            names = (b"%07d%s" % (number, ending) for number in range(start, min(start + PER_PIECE, count)))
            yield b"".join(pieces(name, data) for name in names)
    yield END


def tar_of_many(count: int, data: bytes = b"") -> Iterator[bytes]:
    """A tar of so many files."""
    body = data.ljust(len(data) + -len(data) % 512, b"\0")
    header = bytearray(tar_header("0000000.jpg", len(data)))
    blank = sum(header) - sum(header[:7]) - sum(header[148:156]) + 8 * ord(" ")
    for start in range(0, count, PER_PIECE):
        pieces = []
        for number in range(start, min(start + PER_PIECE, count)):
            header[:7] = b"%07d" % number
            header[148:156] = b"%06o\0 " % (blank + sum(header[:7]))
            pieces.append(bytes(header) + body)
        yield b"".join(pieces)
    yield bytes(1024)


def tar_header(name: str, size: int, raw_size: bytes | None = None) -> bytes:
    """A header whose sum adds up; ``raw_size`` replaces the twelve bytes of its size."""
    info = tarfile.TarInfo(name)
    info.size = size
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if raw_size is not None:
        header[124:136] = raw_size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
