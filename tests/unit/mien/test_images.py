"""Decoding: every format, mode and orientation comes out upright and right; every bad file gets its named error."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from PIL import Image

from mien.errors import ImageError
from mien.images import decode, probe

COLOURS = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (30, 60, 210), "grey": (128, 128, 128)}
DATA = Path(__file__).parent / "data"
LOSSY = 12
WIDTH, HEIGHT = 64, 48


def quadrants() -> Image.Image:
    """Red and green above, blue and grey below: any turn or mirroring shows."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for i, colour in enumerate(COLOURS.values()):
        left, top = (i % 2) * WIDTH // 2, (i // 2) * HEIGHT // 2
        image.paste(colour, (left, top, left + WIDTH // 2, top + HEIGHT // 2))
    return image


def corners(pixels: npt.NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """The colours in the middle of the four quadrants, row by row."""
    height, width, _ = pixels.shape
    return [tuple(map(int, pixels[y, x])) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]  # type: ignore[misc]


def check_quadrants(pixels: npt.NDArray[np.uint8], expected: list[tuple[int, ...]] | None = None) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_allclose(corners(pixels), expected or list(COLOURS.values()), atol=LOSSY)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_formats(format: str) -> None:  # noqa: A002
    options = {"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}
    decoded = decode(saved(quadrants(), format, **options))
    check_quadrants(decoded.pixels)
    assert (decoded.format, decoded.width, decoded.height, decoded.scale) == (format, WIDTH, HEIGHT, 1.0)


def luma(colour: tuple[int, ...]) -> tuple[int, ...]:
    value = Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))  # type: ignore[arg-type]
    return (value, value, value)  # type: ignore[return-value]


GREYS = [luma(colour) for colour in COLOURS.values()]


@pytest.mark.parametrize(
    ("mode", "format", "expected"),
    [
        ("L", "JPEG", GREYS),
        ("L", "PNG", GREYS),
        ("LA", "PNG", GREYS),
        ("1", "PNG", None),
        ("P", "PNG", None),
        ("P", "GIF", None),
        ("RGBA", "PNG", list(COLOURS.values())),
        ("RGBA", "WEBP", list(COLOURS.values())),
        ("RGBA", "TIFF", list(COLOURS.values())),
        ("CMYK", "JPEG", list(COLOURS.values())),
        ("CMYK", "TIFF", list(COLOURS.values())),
        ("YCbCr", "TIFF", list(COLOURS.values())),
    ],
)
def test_colour_modes(mode: str, format: str, expected: list[tuple[int, ...]] | None) -> None:  # noqa: A002
    image = quadrants().convert(mode)
    decoded = decode(saved(image, format, **({"quality": 95} if format != "PNG" else {})))
    check_quadrants(decoded.pixels, expected or corners(np.asarray(image.convert("RGB"))))


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"restart_marker_blocks": 1}]
)
def test_kinds_of_jpeg(options: dict[str, Any]) -> None:
    check_quadrants(decode(saved(quadrants(), "JPEG", quality=95, **options)).pixels)


@pytest.mark.parametrize("container", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_byte(container: str) -> None:
    levels = np.array([[0, 255, 256, 32768, 65280, 65535]], np.uint16).repeat(4, axis=0)
    decoded = decode(saved(Image.fromarray(levels), container))
    np.testing.assert_array_equal(decoded.pixels[0, :, 0], [0, 0, 1, 128, 255, 255])
    assert (decoded.pixels[..., 0] == decoded.pixels[..., 2]).all()


def test_big_endian_sixteen_bit_tiff() -> None:
    levels = np.array([[0, 256, 65535]], ">u2").repeat(3, axis=0)
    image = Image.frombytes("I;16B", (3, 3), levels.tobytes())
    np.testing.assert_array_equal(decode(saved(image, "TIFF")).pixels[0, :, 0], [0, 1, 255])


def test_sixteen_bit_colour_png() -> None:
    rows = b"".join(b"\0" + struct.pack(">6H", 65535, 32768, 0, 256, 65280, 128) for _ in range(2))
    pixels = decode(png(2, 2, 16, 2, zlib.compress(rows))).pixels
    np.testing.assert_array_equal(pixels[0], [[255, 128, 0], [1, 255, 0]])


def test_floats_and_wide_integers() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32))
    np.testing.assert_array_equal(decode(saved(unit, "TIFF")).pixels[0, :, 0], [0, 128, 255, 0])
    wide = Image.fromarray(np.array([[0, 256, 65535]], np.int32))
    np.testing.assert_array_equal(decode(saved(wide, "TIFF")).pixels[0, :, 0], [0, 1, 255])


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert (decode(saved(clear, "PNG")).pixels == 255).all()
    assert abs(int(decode(saved(half, "PNG")).pixels[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([0, 0, 0] * 256)
    assert (decode(saved(palette, "PNG", transparency=3)).pixels == 255).all()
    assert (decode(saved(palette, "GIF", transparency=3)).pixels == 255).all()
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    assert (decode(saved(keyed, "PNG", transparency=(1, 2, 3))).pixels == 255).all()


def test_the_first_frame_or_page_is_taken() -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    for format in ("GIF", "TIFF", "PNG", "WEBP"):  # noqa: A001
        decoded = decode(saved(red, format, save_all=True, append_images=[blue]))
        np.testing.assert_allclose(decoded.pixels[4, 4], [255, 0, 0], atol=LOSSY)


def test_heic_where_its_package_is_installed() -> None:
    pytest.importorskip("pi_heif", reason="pi-heif has no wheel here")
    for name in ("quadrants.heic", "quadrants_turned.heic"):  # the second is stored on its side, with an irot box
        decoded = decode((DATA / name).read_bytes())
        check_quadrants(decoded.pixels)
        assert (decoded.format, decoded.width, decoded.height) == ("HEIF", WIDTH, HEIGHT)
    data = (DATA / "quadrants.heic").read_bytes()
    assert code_of(data[: len(data) * 2 // 3]) in ("truncated", "corrupt")
    assert code_of(data, max_pixels=1000) == "too_large"


def test_heic_without_its_package_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    assert code_of((DATA / "quadrants.heic").read_bytes()) == "unsupported_format"


# orientation tag -> the transposition that a camera's sensor data shows
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(format: str, orientation: int) -> None:  # noqa: A002
    stored = quadrants().transpose(STORED[orientation]) if orientation > 1 else quadrants()
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(stored, format, exif=exif, **({"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}))
    decoded = decode(data)
    check_quadrants(decoded.pixels)
    assert decoded.pixels.shape == (HEIGHT, WIDTH, 3)
    assert (decoded.width, decoded.height, decoded.orientation) == (WIDTH, HEIGHT, orientation)
    header = probe(data)
    assert (header.width, header.height, header.orientation) == (WIDTH, HEIGHT, orientation)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_impossible_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    decoded = decode(saved(quadrants(), "JPEG", exif=exif, quality=95))
    check_quadrants(decoded.pixels)
    assert decoded.orientation == 1


def test_broken_exif_is_ignored() -> None:
    exif = b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\x01" * 40
    check_quadrants(decode(saved(quadrants(), "JPEG", exif=exif, quality=95)).pixels)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("min_side", "factor"), [(None, 1), (1001, 1), (1000, 1), (500, 2), (251, 2), (250, 4), (100, 8)]
)
def test_reduction_keeps_the_side_and_the_exact_scale(format: str, min_side: int | None, factor: int) -> None:  # noqa: A002
    data = saved(quadrants().resize((1000, 750), Image.Resampling.NEAREST), format)
    decoded = decode(data, min_side=min_side)
    wanted = factor if format == "JPEG" or min_side is None else max(1, 1000 // min_side)
    assert decoded.scale == 1 / wanted
    assert decoded.pixels.shape == (-(-750 // wanted), -(-1000 // wanted), 3)
    assert (decoded.width, decoded.height) == (1000, 750)
    check_quadrants(decoded.pixels)


def test_the_same_bytes_give_the_same_array() -> None:
    data = saved(Image.effect_noise((300, 200), 60).convert("RGB"), "JPEG")
    assert (decode(data, min_side=150).pixels == decode(bytes(data), min_side=150).pixels).all()
    assert (decode(memoryview(data)).pixels == decode(data).pixels).all()


def code_of(data: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, **options)
    assert caught.value.detail.endswith(".")
    return caught.value.code


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.8, 0.97])
def test_truncated_files_are_refused(format: str, share: float) -> None:  # noqa: A002
    data = saved(Image.effect_noise((300, 200), 80).convert("RGB"), format)
    assert code_of(data[: int(len(data) * share)]) in ("truncated", "corrupt")


def test_a_truncated_jpeg_is_never_silently_grey() -> None:
    noise = Image.effect_noise((300, 200), 80).convert("RGB")
    for options in ({}, {"progressive": True}):
        data = saved(noise, "JPEG", **options)
        for cut in (len(data) // 4, len(data) // 2, len(data) - 200, len(data) - 2):
            assert code_of(data[:cut]) == "truncated"
            assert code_of(data[:cut], min_side=20) == "truncated"
            # a partial download that a tool closed properly: the missing part would be grey
            assert code_of(data[:cut][:-2] + b"\xff\xd9") in ("truncated", "corrupt") or cut == len(data) - 2
            # and one that was padded with zeros
            assert code_of(data[:cut] + b"\0" * 5000) in ("truncated", "corrupt") or cut >= len(data) - 2


def test_a_cmyk_jpeg_that_is_cut_is_refused() -> None:
    data = saved(Image.effect_noise((300, 200), 80).convert("CMYK"), "JPEG")
    assert code_of(data[: len(data) // 2]) == "truncated"


def test_stray_bytes_in_a_jpeg_do_no_harm() -> None:
    data = saved(quadrants(), "JPEG", quality=95)
    check_quadrants(decode(data + b"\0" * 1000).pixels)
    check_quadrants(decode(data[:-2] + b"\x11\x22\x33" + data[-2:]).pixels)


def test_a_jpeg_of_a_rare_sampling_is_read_by_the_other_decoder() -> None:
    flat = Image.new("RGB", (48, 16), (128, 128, 128))  # all blocks are alike, so that their order does not matter
    data = bytearray(saved(flat, "JPEG", keep_rgb=True, subsampling=0))
    frame = data.index(b"\xff\xc0")
    for component, sampling in enumerate((0x22, 0x21, 0x12)):
        data[frame + 11 + 3 * component] = sampling
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(bytes(data))
    assert (decode(bytes(data)).pixels == 128).all()


def png(width: int, height: int, depth: int, colour: int, body: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_from_its_header() -> None:
    bomb = png(30_000, 30_000, 8, 2, b"not even compressed data")
    assert code_of(bomb) == "too_large"
    with pytest.raises(ImageError) as caught:
        probe(bomb)
    assert caught.value.code == "too_large"


def test_a_real_bomb_of_900_megapixels_is_refused_without_decoding() -> None:
    squeeze = zlib.compressobj(9)
    row = b"\0" * 3751  # 30,000 pixels of one bit
    body = b"".join(squeeze.compress(row * 1000) for _ in range(30)) + squeeze.flush()
    assert code_of(png(30_000, 30_000, 1, 0, body)) == "too_large"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_the_ceiling_holds_for_every_format(format: str) -> None:  # noqa: A002
    data = saved(Image.new("RGB", (200, 200)), format)
    assert decode(data, max_pixels=40_000).width == 200
    assert code_of(data, max_pixels=39_999) == "too_large"
    assert code_of(data, max_pixels=10_000) == "too_large"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"hello, world", "not_an_image"),
        (b"\0" * 4096, "not_an_image"),
        (b"%PDF-1.7 ...", "unsupported_format"),
        (b"8BPS\0\x01" + b"\0" * 100, "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "unsupported_format"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "corrupt"),
        (b"\x89PNG\r\n\x1a\n", "corrupt"),
        (b"GIF89a", "corrupt"),
        (b"BM" + b"\xff" * 60, "corrupt"),
        (b"II*\0\x08\0\0\0", "corrupt"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "corrupt"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "corrupt"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, code: str) -> None:
    found = code_of(data)
    assert found == code or (code == "corrupt" and found == "truncated")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_damaged_files_give_an_array_or_a_named_error(format: str) -> None:  # noqa: A002
    good = saved(quadrants(), format)
    dice = random.Random(5)
    for _ in range(150):
        data = bytearray(good)
        for _ in range(dice.randint(1, 12)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            decoded = decode(bytes(data), max_pixels=1_000_000)
        except ImageError as error:
            assert error.code in ("not_an_image", "unsupported_format", "truncated", "corrupt", "too_large")
        else:
            assert decoded.pixels.ndim == 3
