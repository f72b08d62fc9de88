"""Broken and hostile images of our own making, in every format that Mien reads; nothing here is anybody's file.

:func:`corpus` gives them by name. Each must end in an array or in a named error, within the bounds that
:mod:`tests.support.bounded_decoding` sets and measures.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from tests.support.image_parts import (
    SIZE,
    behind_gif_screen,
    exif_loop,
    exif_of,
    gif_code_size,
    gif_frame,
    good,
    iloc_elsewhere,
    many_scans,
    photo,
    png,
    saved,
    tiff,
    with_app,
    with_apps,
    zeros_compressed,
)

MUST_FAIL = ("cut/", "huge/", "zero/", "bomb/", "not_an_image/")
"""Groups of which none may come out as an array."""


@cache
def corpus() -> dict[str, bytes]:
    """All of them by name, ``group/what``."""
    found: dict[str, bytes] = {}
    for part in (_cut, _flipped, _huge, _zero, _bombs, _oddities, _polyglots, _structures, _no_images):
        for name, data in part():
            assert name not in found, name
            found[name] = data
    return found


def _cut() -> Iterator[tuple[str, bytes]]:
    for name, data in good().items():
        for share in (0.05, 0.3, 0.6, 0.9):
            yield f"cut/{name} at {share:.0%}", data[: int(len(data) * share)]


def _flipped() -> Iterator[tuple[str, bytes]]:
    for name, data in good().items():
        dice = random.Random(name)
        for round_ in range(4):
            broken = bytearray(data)
            for _ in range(3 * 4**round_):
                broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
            yield f"flipped/{name} {round_}", bytes(broken)
        # a run of one byte, a hole, and two halves in the wrong order
        third = len(data) // 3
        yield f"flipped/{name} run", data[:third] + b"\xff" * third + data[2 * third :]
        yield f"flipped/{name} hole", data[:third] + data[third + third // 2 :]
        yield f"flipped/{name} swapped", data[:third] + data[2 * third :] + data[third : 2 * third]


def _huge() -> Iterator[tuple[str, bytes]]:
    """Headers that claim more pixels than any ceiling, with next to nothing behind them."""
    side = 60_000
    jpeg = bytearray(good()["JPEG"])
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side, side)
    yield "huge/JPEG", bytes(jpeg)
    yield "huge/PNG", png(2**31 - 1, 2**31 - 1, 8, 2, zlib.compress(b""))
    yield "huge/PNG one line", png(2**31 - 1, 1, 8, 6, zlib.compress(b""))
    gif = bytearray(good()["GIF"])
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    yield "huge/GIF", bytes(gif)
    bmp = bytearray(good()["BMP"])
    bmp[18:26] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    yield "huge/BMP", bytes(bmp)
    yield (
        "huge/TIFF",
        tiff({256: (4, 2**31), 257: (4, 2**31), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8), 279: (4, 1)}),
    )
    webp = bytearray(saved(photo(), "WEBP", save_all=True, append_images=[photo(1)]))
    place = webp.index(b"VP8X") + 12
    webp[place : place + 6] = b"\xff" * 6
    yield "huge/WEBP canvas", bytes(webp)
    for name in ("AVIF", "HEIC"):
        large = bytearray(good()[name])
        place = large.index(b"ispe") + 8
        large[place : place + 8] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
        yield f"huge/{name}", bytes(large)


def _zero() -> Iterator[tuple[str, bytes]]:
    jpeg = bytearray(good()["JPEG"])
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = bytes(4)
    yield "zero/JPEG", bytes(jpeg)
    yield "zero/PNG", png(0, 0, 8, 2, zlib.compress(b""))
    yield "zero/PNG width", png(0, 10, 8, 2, zlib.compress(bytes(10)))
    bmp = bytearray(good()["BMP"])
    bmp[18:26] = bytes(8)
    yield "zero/BMP", bytes(bmp)
    gif = bytearray(good()["GIF"])
    gif[6:10] = bytes(4)
    frame = gif_frame(gif)
    gif[frame + 5 : frame + 9] = bytes(4)
    yield "zero/GIF", bytes(gif)
    yield "zero/TIFF", tiff({256: (4, 0), 257: (4, 0), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8), 279: (4, 0)})
    yield "zero/bytes", b""


def _bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that would unpack to gigabytes."""
    flood = zeros_compressed(64 << 20)
    yield "bomb/PNG of 900 megapixels", png(30_000, 30_000, 1, 0, flood)
    yield "bomb/PNG text", png(8, 8, 8, 2, b"", before=[(b"zTXt", b"note\0\0" + flood)])
    yield "bomb/PNG international text", png(8, 8, 8, 2, b"", before=[(b"iTXt", b"note\0\1\0\0\0" + flood)])
    yield (
        "bomb/PNG many texts",
        png(8, 8, 8, 2, b"", before=[(b"zTXt", b"n%d\0\0" % n + zeros_compressed(1 << 20)) for n in range(100)]),
    )
    yield "bomb/PNG profile", png(8, 8, 8, 2, b"", before=[(b"iCCP", b"p\0\0" + flood)])
    body = flood
    tags = {256: (4, 30_000), 257: (4, 30_000), 258: (3, 8), 259: (3, 8), 262: (3, 1), 278: (4, 30_000)}
    yield "bomb/TIFF of 900 megapixels", tiff({**tags, 273: (4, 8), 279: (4, len(body))}, body)
    rle = b"\xff\x00" * 2000 + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 8, 1, len(rle), 0, 0, 256, 0)
    offset = 14 + len(head) + 1024
    yield "bomb/BMP in runs", b"BM" + struct.pack("<IHHI", offset + len(rle), 0, 0, offset) + head + bytes(1024) + rle


def _oddities() -> Iterator[tuple[str, bytes]]:
    """Unusual but sound, or nearly: colours, depths, turns, profiles, frames."""
    base = photo()
    yield "odd/CMYK JPEG", saved(base.convert("CMYK"), "JPEG")
    yield "odd/CMYK TIFF", saved(base.convert("CMYK"), "TIFF", compression="tiff_lzw")
    yield "odd/LAB TIFF", saved(base.convert("LAB"), "TIFF")
    yield "odd/YCbCr TIFF", saved(base.convert("YCbCr"), "TIFF", compression="jpeg")
    yield "odd/grey with alpha PNG", saved(base.convert("LA"), "PNG")
    yield "odd/palette with alpha PNG", saved(base.convert("P"), "PNG", transparency=bytes(range(256)))
    yield "odd/one bit PNG", saved(base.convert("1"), "PNG")
    yield "odd/one bit fax TIFF", saved(base.convert("1"), "TIFF", compression="group4")
    sixteen = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[1], SIZE[0])
    yield "odd/16 bit PNG", saved(Image.fromarray(sixteen), "PNG")
    yield "odd/16 bit TIFF", saved(Image.fromarray(sixteen), "TIFF", compression="tiff_deflate")
    yield "odd/32 bit TIFF", saved(Image.fromarray(sixteen.astype(np.int32) * 30_000), "TIFF")
    floats = Image.fromarray(np.where(sixteen > 60_000, np.nan, sixteen / 65535).astype(np.float32))
    yield "odd/float TIFF with holes", saved(floats, "TIFF")
    endless = Image.fromarray(np.full((4, 4), -np.inf, np.float32))
    yield "odd/float TIFF of infinities", saved(endless, "TIFF")
    for name in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        frames = [photo(number) for number in range(1, 6)]
        yield f"odd/animated {name}", saved(base, name, save_all=True, append_images=frames)
    yield (
        "odd/animated GIF of 2,000 frames",
        saved(
            Image.new("P", (4, 4)),
            "GIF",
            save_all=True,
            append_images=[Image.new("P", (4, 4), n % 200) for n in range(2000)],
        ),
    )
    for turn in (0, 3, 6, 9, 65535):
        exif = Image.Exif()
        exif[274] = turn
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            yield f"odd/{name} turned by {turn}", saved(base, name, exif=exif)
    yield "odd/EXIF that refers to itself", saved(base, "JPEG", exif=exif_loop())
    yield "odd/EXIF of four gigabytes", saved(base, "JPEG", exif=exif_of(0xFFFFFFFF))
    yield "odd/EXIF that is no EXIF", saved(base, "JPEG", exif=b"Exif\0\0" + b"\xff" * 500)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        yield f"odd/{name} with a profile for LAB", saved(base, name, icc_profile=profile)
        yield f"odd/{name} with a broken profile", saved(base, name, icc_profile=b"\xff" * 300)
    yield "odd/JPEG with a part of a profile", with_app(good()["JPEG"], 2, b"ICC_PROFILE\0\x02\x09" + bytes(100))
    yield "odd/JPEG with 200 profiles", with_apps(good()["JPEG"], 2, [b"ICC_PROFILE\0\x01\x01" + bytes(60_000)] * 200)
    yield "odd/one pixel wide", saved(Image.new("RGB", (1, 20_000)), "PNG")
    yield "odd/one pixel", saved(Image.new("RGB", (1, 1)), "BMP")


def _polyglots() -> Iterator[tuple[str, bytes]]:
    """Files that are two things at once, and files under the wrong name: the content decides."""
    sound = good()
    script = b"<script>alert(1)</script>"
    archive = b"PK\3\4" + bytes(26) + b"PK\5\6" + bytes(18)
    for name, data in sound.items():
        yield f"polyglot/{name} and an archive", data + archive
        yield f"polyglot/{name} and a page", data + b"<html>" + script
    yield "polyglot/JPEG with a page in its comment", with_app(sound["JPEG"], 14, b"--><html>" + script)
    yield "polyglot/GIF that is a script", b"GIF89a/*" + sound["GIF"][8:] + b"*/=1;alert(1)"
    yield "polyglot/BMP that is a script", b"BM/*" + sound["BMP"][4:] + b"*/=1"
    yield "polyglot/PDF with a JPEG", b"%PDF-1.7\n" + sound["JPEG"]
    yield "polyglot/page with a PNG", b"<html>" + sound["PNG"]
    yield "polyglot/JPEG behind a PNG signature", sound["PNG"][:8] + sound["JPEG"]
    yield "polyglot/two JPEGs", sound["JPEG"] + sound["JPEG progressive"]
    yield "polyglot/WAVE in a RIFF", b"RIFF" + struct.pack("<I", 100) + b"WAVEfmt " + bytes(92)
    yield "polyglot/HEIC that is AVIF", sound["AVIF"].replace(b"avif", b"heic", 1)
    yield "polyglot/AVIF that is HEIC", sound["HEIC"].replace(b"heic", b"avif", 1)


def _structures() -> Iterator[tuple[str, bytes]]:
    """Chunks, tables and directories that loop, lie or never end."""
    sound = good()
    bits = {258: (3, 8), 259: (3, 1), 262: (3, 1)}
    yield (
        "structure/TIFF that follows itself",
        tiff({256: (4, 4), 257: (4, 4), **bits, 273: (4, 8), 279: (4, 16)}, bytes(16), next_at=-1),
    )
    yield (
        "structure/TIFF with its data elsewhere",
        tiff({256: (4, 99), 257: (4, 99), **bits, 273: (4, 2**31), 279: (4, 2**31)}),
    )
    yield (
        "structure/TIFF of many samples",
        tiff({256: (4, 4), 257: (4, 4), **bits, 277: (3, 65535), 273: (4, 8), 279: (4, 16)}, bytes(16)),
    )
    yield (
        "structure/TIFF of odd bits",
        tiff({256: (4, 4), 257: (4, 4), 258: (3, 63), 259: (3, 1), 262: (3, 1), 273: (4, 8), 279: (4, 16)}, bytes(16)),
    )
    tiles = {256: (4, 64), 257: (4, 64), **bits, 322: (4, 2**30), 323: (4, 2**30), 324: (4, 8), 325: (4, 16)}
    yield "structure/TIFF of vast tiles", tiff(tiles, bytes(16))
    yield (
        "structure/TIFF packed unknown",
        tiff(
            {256: (4, 4), 257: (4, 4), 258: (3, 8), 259: (3, 34_999), 262: (3, 1), 273: (4, 8), 279: (4, 16)}, bytes(16)
        ),
    )
    yield "structure/TIFF of 65,535 tags", b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + b"\xff" * 5000
    many = b"".join(struct.pack("<HHII", 1000 + n, 2, 1_000_000, 8) for n in range(60_000))
    yield "structure/TIFF of vast tags", b"II*\0\x08\0\0\0" + struct.pack("<H", 60_000) + many + bytes(1_000_100)
    rows = zlib.compress(bytes(8 * 25))
    yield "structure/PNG of 20,000 notes", png(8, 8, 8, 2, rows, before=[(b"tEXt", b"n\0x")] * 20_000)
    yield "structure/PNG of 200,000 parts", png(8, 8, 8, 2, rows, before=[(b"abCd", b"")] * 200_000)
    yield (
        "structure/PNG chunk of two gigabytes",
        sound["PNG"][:33] + struct.pack(">I", 2**31 - 1) + b"tEXt" + bytes(100),
    )
    yield "structure/PNG without an end", sound["PNG"][: sound["PNG"].index(b"IEND") - 4]
    yield "structure/PNG with too little data", png(500, 500, 8, 2, zlib.compress(bytes(100)))
    yield "structure/PNG with too much data", png(8, 8, 8, 2, zlib.compress(bytes(5_000_000)))
    yield "structure/PNG with a palette it lacks", png(8, 8, 8, 3, zlib.compress(bytes(72)))
    yield "structure/JPEG of many comments", with_apps(sound["JPEG"], 14, [b"x" * 60_000] * 100)
    yield "structure/JPEG of 5,000 scans", many_scans(sound["JPEG progressive"], 5000)
    yield "structure/JPEG of 300 EXIF blocks", with_apps(sound["JPEG"], 1, [b"Exif\0\0" + bytes(60_000)] * 300)
    notes = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\2ab" * 4000
    yield "structure/JPEG of a million notes", with_apps(sound["JPEG"], 13, [notes] * 300)
    yield "structure/JPEG of filling", sound["JPEG"][:2] + b"\xff" * 3_000_000 + sound["JPEG"][2:]
    yield "structure/JPEG of empty segments", sound["JPEG"][:2] + b"\xff\xfe\0\2" * 300_000 + sound["JPEG"][2:]
    yield "structure/JPEG without tables", sound["JPEG"].replace(b"\xff\xc4", b"\xff\xfe")
    yield "structure/JPEG of twelve bits", sound["JPEG"].replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")
    yield "structure/JPEG in arithmetic code", sound["JPEG"].replace(b"\xff\xc0", b"\xff\xc9")
    yield "structure/JPEG lossless", sound["JPEG"].replace(b"\xff\xc0", b"\xff\xc3")
    yield "structure/JPEG of seven components", sound["JPEG"].replace(b"\xff\xc0\0\x11", b"\xff\xc0\0\x1d")
    yield "structure/GIF with code sizes it cannot have", gif_code_size(sound["GIF"], 255)
    yield "structure/GIF of 300,000 comments", behind_gif_screen(sound["GIF"], b"\x21\xfe\1x\0" * 300_000)
    yield "structure/GIF of nothing", behind_gif_screen(sound["GIF"], bytes(3_000_000))
    yield "structure/GIF whose data never ends", sound["GIF"][:-2] + b"\xff" + bytes(255)
    yield "structure/WEBP longer than it is", b"RIFF\xff\xff\xff\xff" + sound["WEBP"][8:]
    yield "structure/WEBP chunk of four gigabytes", sound["WEBP"][:16] + b"\xff\xff\xff\xff" + sound["WEBP"][20:]
    yield "structure/BMP with its data elsewhere", sound["BMP"][:10] + b"\xff\xff\xff\x7f" + sound["BMP"][14:]
    yield "structure/BMP with a palette of four gigabytes", sound["BMP"][:46] + b"\xff\xff\xff\xff" + sound["BMP"][50:]
    for name in ("AVIF", "HEIC"):
        boxes = sound[name]
        yield f"structure/{name} box within itself", boxes[:32] + boxes[:32] * 200 + boxes[32:]
        yield f"structure/{name} box of no length", boxes.replace(b"iprp", b"\0\0\0\0", 1)
        yield f"structure/{name} data elsewhere", iloc_elsewhere(boxes)


def _no_images() -> Iterator[tuple[str, bytes]]:
    yield "not_an_image/text under an image's name", b"This is no image.\n" * 50
    yield "not_an_image/zeros", bytes(100_000)
    yield "not_an_image/noise", random.Random(7).randbytes(100_000)
    yield "not_an_image/vector", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    yield "not_an_image/entities", b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><svg>&a;</svg>"
    yield "not_an_image/PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n"
    yield "not_an_image/PDF", b"%PDF-1.7\n1 0 obj\n"
    yield "not_an_image/Photoshop", b"8BPS\0\1" + bytes(200)
    yield "not_an_image/video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(200)
    yield "not_an_image/icon", b"\0\0\1\0\1\0\xff\xff" + bytes(200)
    yield "not_an_image/FITS", b"SIMPLE  =                    T" + b" " * 2850
    for name, data in good().items():
        yield f"not_an_image/only the signature of {name}", data[:12]
