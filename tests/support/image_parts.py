"""Image files made byte by byte: sound ones in every format that Mien reads, and the parts of hostile ones."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DATA = Path(__file__).parents[1] / "unit" / "mien" / "data"
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")
"""Those that Pillow writes; HEIC comes from a file of ours."""
SIZE = (96, 64)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002
    """The image as a file."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@cache
def photo(seed: int = 0) -> Image.Image:
    """Colour and structure everywhere, so that no cut or flipped byte is without effect."""
    values = np.random.default_rng(seed).integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4, 3), np.uint8)
    return Image.fromarray(values).resize(SIZE, Image.Resampling.BICUBIC)


@cache
def good() -> dict[str, bytes]:
    """One sound file per format."""
    files = {
        name: saved(photo(), name, **({"quality": 90} if name in ("JPEG", "WEBP", "AVIF") else {})) for name in FORMATS
    }
    files["JPEG progressive"] = saved(photo(), "JPEG", progressive=True)
    files["PNG interlaced"] = interlaced_png()
    files["TIFF deflate"] = saved(photo(), "TIFF", compression="tiff_deflate")
    files["HEIC"] = (DATA / "quadrants.heic").read_bytes()
    return files


def png(
    width: int, height: int, depth: int, colour: int, body: bytes, *, before: list[tuple[bytes, bytes]] | None = None
) -> bytes:
    """A PNG with this header and this (compressed) data; ``before`` it other chunks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *(before or []), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in chunks)


def interlaced_png() -> bytes:
    """Adam7: seven passes over the photo, each of every so-many-th pixel."""
    pixels = np.asarray(photo())
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(
        b"\0" + row.tobytes() for x, y, across, down in passes for row in pixels[y::down, x::across]
    )  # fmt: skip
    made = bytearray(png(*SIZE, 8, 2, zlib.compress(rows)))
    made[28] = 1  # interlace method
    made[29:33] = struct.pack(">I", zlib.crc32(bytes(made[12:29])))
    return bytes(made)


@cache
def zeros_compressed(size: int) -> bytes:
    """So many zeros, compressed."""
    squeeze = zlib.compressobj(1)
    block = bytes(1 << 20)
    whole, rest = divmod(size, len(block))
    return b"".join([*(squeeze.compress(block) for _ in range(whole)), squeeze.compress(bytes(rest)), squeeze.flush()])


def tiff(tags: dict[int, tuple[int, int]], body: bytes = b"", *, next_at: int = 0) -> bytes:
    """A TIFF: the data at 8, then one directory of single values (tag: type, value); endless with ``next_at`` -1."""
    at = 8 + len(body) + len(body) % 2
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", at if next_at < 0 else next_at)
    return b"II*\0" + struct.pack("<I", at) + body.ljust(at - 8, b"\0") + directory


def with_app(jpeg: bytes, number: int, content: bytes) -> bytes:
    return with_apps(jpeg, number, [content])


def with_apps(jpeg: bytes, number: int, contents: list[bytes]) -> bytes:
    """The JPEG with segments of this kind (APPn, 14 for a comment) behind its start."""
    marker = b"\xff" + (b"\xfe" if number == 14 else bytes([0xE0 + number]))
    segments = b"".join(marker + struct.pack(">H", len(content) + 2) + content for content in contents)
    return jpeg[:2] + segments + jpeg[2:]


def many_scans(jpeg: bytes, count: int) -> bytes:
    """The last scan of a progressive JPEG over and over: each runs over the whole image for a few bytes."""
    last = jpeg.rindex(b"\xff\xda")
    scan = jpeg[last:-2]
    return jpeg[:-2] + scan * count + jpeg[-2:]


def exif_loop() -> bytes:
    """A directory whose pointer to the EXIF directory leads back to itself."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + struct.pack("<I", 8)


def exif_of(count: int) -> bytes:
    """A tag that claims so many values."""
    entry = struct.pack("<HHII", 0x010E, 2, count, 8)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + struct.pack("<I", 0)


def gif_code_size(gif: bytes, size: int) -> bytes:
    made = bytearray(gif)
    made[gif_frame(gif) + 10] = size
    return bytes(made)


def gif_frame(gif: bytes | bytearray) -> int:
    """Where the first frame begins: behind the screen and its palette."""
    return gif.index(b",", 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 0x80 else 0))


def behind_gif_screen(gif: bytes, blocks: bytes) -> bytes:
    at = 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 0x80 else 0)
    return gif[:at] + blocks + gif[at:]


def iloc_elsewhere(boxes: bytes) -> bytes:
    at = boxes.index(b"iloc")
    size = struct.unpack(">I", boxes[at - 4 : at])[0]
    return boxes[: at + 12] + b"\xff" * (size - 16) + boxes[at - 4 + size :]
