"""The process that makes pictures for the pages: it alone decodes strangers' files for the front end.

It is started with nothing but a pipe on each side: no settings, no keys, no connection. It may hold only so much
memory, write no file, and use only so much processor time for one picture; whatever a file does to it, the front end
starts another. One request is a line of JSON and the image file's bytes; an answer is a line of JSON and the
picture's bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
import simplejpeg
from PIL import Image

from mien.errors import ImageError
from mien.images import RGB, DecodedImage, decode, probe

MEMORY_BYTES = 3 << 30
CPU_S = 20
QUALITY = 80


def main() -> None:
    """Make pictures until the other side closes the pipe."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints does not get among the answers
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    os.nice(5)  # engines first
    while line := source.readline():
        wanted = json.loads(line)
        data = _exactly(source, wanted["bytes"])
        _allow_cpu(CPU_S)
        try:
            picture, facts = render(data, wanted)
        except ImageError as error:
            picture, facts = b"", {"code": error.code, "detail": error.detail}
        except MemoryError:
            picture, facts = b"", {"code": "decode_memory", "detail": "There is not enough memory for this picture."}
        del data
        sink.write(json.dumps({**facts, "bytes": len(picture)}).encode() + b"\n" + picture)
        sink.flush()


def render(data: bytes, wanted: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """A JPEG of the image, upright, its longer side at most ``max_side``; gives it and facts about what was read.

    ``wanted``: ``max_side``; ``max_pixels``; optionally ``sha256``, which the file must still have; optionally
    ``crop``: x, y, width, height in pixels of the upright image, made a square around the middle of that box.

    Raises:
        ImageError: it cannot be decoded; ``changed``, it is another file by now.
    """
    digest = hashlib.sha256(data).hexdigest()
    if wanted.get("sha256") not in (None, digest):
        raise ImageError("changed", "The file has changed since it was classified.")
    max_side, max_pixels = int(wanted["max_side"]), int(wanted["max_pixels"])
    if wanted.get("crop") is None:
        image = decode(data, min_side=2 * max_side, max_pixels=max_pixels)
        pixels = _fitted(image.pixels, max_side)
    else:
        x, y, width, height = (float(value) for value in wanted["crop"])
        header = probe(data, max_pixels=max_pixels)
        longer, side = max(header.width, header.height), max(width, height, 1.0)
        least = min(longer, round(2 * max_side * longer / side))
        image = decode(data, min_side=max(least, 1), max_pixels=max_pixels)
        pixels = _fitted(_square(image, x + width / 2, y + height / 2, side), max_side)
    picture = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=QUALITY, colorsubsampling="420")
    return picture, {"width": image.width, "height": image.height}


def _square(image: DecodedImage, x: float, y: float, side: float) -> RGB:
    """The square of ``side`` around (x, y), moved and shrunk into the image."""
    tall, wide = image.pixels.shape[:2]
    size = max(1, min(round(side * image.scale), tall, wide))
    left = min(max(round(x * image.scale - size / 2), 0), wide - size)
    top = min(max(round(y * image.scale - size / 2), 0), tall - size)
    square: RGB = image.pixels[top : top + size, left : left + size]
    return square


def _fitted(pixels: RGB, max_side: int) -> RGB:
    tall, wide = pixels.shape[:2]
    if max(tall, wide) <= max_side:
        return pixels
    ratio = max_side / max(tall, wide)
    size = (max(1, round(wide * ratio)), max(1, round(tall * ratio)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0))


def _exactly(source: BinaryIO, count: int) -> bytes:
    data = source.read(count)
    if len(data) < count:
        raise SystemExit(0)  # the other side is gone
    return data


def _limit(what: int, most: int) -> None:
    with suppress(ValueError, OSError):  # macOS does not know every limit
        resource.setrlimit(what, (most, most))


def _allow_cpu(seconds: int) -> None:
    """So much processor time from here on; beyond it the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard))


if __name__ == "__main__":
    main()
