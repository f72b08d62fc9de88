"""Bounds on what a crafted file makes a decoder do: few bytes that cost minutes are refused before they are decoded.

The engines' deadline (``MIEN_IMAGE_TIMEOUT_S``) ends whatever is left; these bounds keep it from ever being needed.
Each lies far above what cameras and programs write.
"""

from __future__ import annotations

import io
import re
import struct

from mien.errors import ImageError

MAX_SEGMENTS = 10_000
"""Marker segments of a JPEG. Pillow reads them one by one, at some microseconds each."""
MAX_SCANS = 100
"""Scans of a JPEG, each of which runs over all pixels, however few bytes it has. Encoders write up to a dozen."""
MAX_EXIF_BYTES = 1 << 20
"""Bytes of all EXIF segments: Pillow joins them in a time that grows with the square of their number."""
MAX_NOTES_BYTES = 16 << 20
"""Bytes of all Photoshop segments, whose parts Pillow reads one by one."""
READS = 200_000
BYTES_PER_READ = 1024
"""Pillow may read ``READS`` times and once more for every ``BYTES_PER_READ`` bytes of the file."""

_START_OF_SCAN, _END = 0xDA, 0xD9
_APP1, _APP13 = 0xE1, 0xED
_SEQUENTIAL = (0xC0, 0xC1)
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7\x01])", re.DOTALL)
"""The next marker with a meaning: within entropy-coded data 0xff is followed by 0x00 or a restart marker."""


class CountedBytes(io.BytesIO):
    """A file in memory that ends whoever reads it in too many small pieces."""

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(data)
        self._left = READS + len(data) // BYTES_PER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        """As in :class:`io.BytesIO`.

        Raises:
            ImageError: ``corrupt``, too many reads.
        """
        self._left -= 1
        if self._left < 0:
            raise ImageError(
                "corrupt", "The file consists of more parts than any image has; it was not read to its end."
            )
        return super().read(size)


def check_jpeg(data: bytes) -> None:
    """Refuse a JPEG whose structure would cost far more than its pixels.

    Raises:
        ImageError: ``unsupported_format``, more scans, segments or notes than any encoder writes.
    """
    at, one_scan = _check_header(data)
    # counting the bytes is quick; what follows the end of the image may hold them by chance, so that many are looked at
    if not one_scan and data.count(_SCAN, at) > MAX_SCANS and _scans(data, at) > MAX_SCANS:
        raise _too_many(MAX_SCANS, "scans")


def _check_header(data: bytes) -> tuple[int, bool]:
    """Go through the segments before the first scan; gives where that begins, or what no longer is a segment, and
    whether the image has one scan only: a sequential one of all its components, after which a decoder stops."""
    exif = notes = components = 0
    at = 2
    for _ in range(MAX_SEGMENTS):
        marker = data[at + 1 : at + 2]
        if data[at : at + 1] != b"\xff" or not marker or marker[0] in (_START_OF_SCAN, _END):
            return at, components > 0 and data[at + 4 : at + 5] == bytes([components])
        if marker[0] == 0xFF or marker[0] in _WITHOUT_LENGTH:
            at += 1 if marker[0] == 0xFF else 2
            continue
        if at + 4 > len(data):
            return at, False
        length = struct.unpack_from(">H", data, at + 2)[0]
        if marker[0] in _SEQUENTIAL:
            components = data[at + 9] if at + 9 < len(data) else 0
        exif += length if marker[0] == _APP1 and data[at + 4 : at + 8] == b"Exif" else 0
        notes += length if marker[0] == _APP13 else 0
        if exif > MAX_EXIF_BYTES:
            raise _too_many(MAX_EXIF_BYTES, "bytes of EXIF")
        if notes > MAX_NOTES_BYTES:
            raise _too_many(MAX_NOTES_BYTES, "bytes of notes")
        at += 2 + length
    raise _too_many(MAX_SEGMENTS, "segments")


def _scans(data: bytes, at: int) -> int:
    """The scans of the image from there on, as far as it matters."""
    scans = segments = 0
    while scans <= MAX_SCANS and segments <= MAX_SEGMENTS and (found := _MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == _END or at + 2 > len(data):
            break
        segments += 1
        scans += marker == _START_OF_SCAN
        at += struct.unpack_from(">H", data, at)[0]
    return scans if segments <= MAX_SEGMENTS else MAX_SCANS + 1


def _too_many(most: int, what: str) -> ImageError:
    return ImageError(
        "unsupported_format",
        f"This JPEG has more than {most:,} {what}, which no camera or program writes; save it anew.",
    )
