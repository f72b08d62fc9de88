"""Safe decoding: the bytes of a file become an upright RGB array, or a named :class:`~mien.errors.ImageError`.

Every engine decodes through this module, so that the same bytes give the same array everywhere. Headers are read and
judged before any pixel is: an image over the ceiling costs nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from mien.errors import ImageError
from mien.hostile import CountedBytes, check_jpeg

RGB = npt.NDArray[np.uint8]
"""Height x width x 3, red first, 0 to 255."""

DEFAULT_MAX_PIXELS = 200_000_000
ORIENTATION_TAG = 274
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF")
_NAMES = {"MPO": "JPEG", "DIB": "BMP"}
# Signatures of what is not decoded, so that the error can name it.
_UNSUPPORTED = (
    (b"8BPS", "Photoshop"), (b"%PDF", "PDF"), (b"%!PS", "PostScript"), (b"<svg", "SVG"), (b"<?xml", "XML or SVG"),
    (b"\xff\x0a", "JPEG XL"), (b"\x00\x00\x00\x0cJXL ", "JPEG XL"), (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"SIMPLE  =", "FITS"), (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"), (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (b"\x00\x00\x01\x00", "icon"), (b"DDS ", "DDS"), (b"qoif", "QOI"),
)  # fmt: skip
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})

# libjpeg's warnings that leave a part of the picture grey or garbled; others (stray bytes, odd JFIF versions) do not.
_JPEG_TRUNCATED = ("Premature end of JPEG file",)
_JPEG_CORRUPT = ("premature end of data segment", "bad Huffman code", "found marker")
_JPEG_UNSUPPORTED = ("Unsupported JPEG", "Unsupported color conversion", "precision", "rithmetic")

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there are as many engines as cores
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # one per broken tag, thousands to a file
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are decoded."""

    format: str
    width: int
    """Of the upright image, in pixels."""
    height: int
    orientation: int
    """EXIF orientation, 1 to 8; 1 where there is none."""


@dataclass(frozen=True)
class DecodedImage:
    """An upright image, possibly at a reduced size."""

    pixels: RGB
    """Height x width x 3, uint8, C-contiguous."""
    width: int
    """Width of the full upright image, in pixels."""
    height: int
    scale: float
    """Pixels of the array per pixel of the full image, 1 or a unit fraction: x in the array is x * scale."""
    format: str
    orientation: int
    """The EXIF orientation that was applied."""


def probe(data: bytes | memoryview, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Header:
    """Read a file's header.

    Raises:
        ImageError: ``empty_file``, ``not_an_image``, ``unsupported_format``, ``truncated``, ``corrupt``, ``too_large``.
    """
    image = _open(data, max_pixels)
    return _header(image)


def decode(
    data: bytes | memoryview, *, min_side: int | None = None, max_pixels: int = DEFAULT_MAX_PIXELS
) -> DecodedImage:
    """Decode a file to an upright RGB array.

    ``min_side`` lets the decoder reduce the image by a whole factor, as long as the array's longer side keeps at least
    so many pixels: JPEG by 2, 4 or 8 inside the inverse DCT, the others by averaging. Ask for twice what is
    needed and resample the rest (aliasing then stays below 0.005 in a classifier's probabilities).
    Transparency is laid over white; of animations and documents the first frame or page is taken.

    Raises:
        ImageError: ``empty_file``, ``not_an_image``, ``unsupported_format``, ``truncated``, ``corrupt``, ``too_large``,
            ``decode_memory``.
    """
    image = _open(data, max_pixels)
    header = _header(image)
    try:
        if header.format == "JPEG":
            pixels, factor = _decode_jpeg(data, image, min_side)
        else:
            pixels, factor = _decode_other(image, min_side)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(
            "decode_memory", f"There is not enough memory for an image of {header.width} x {header.height} pixels."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(header.width, header.height, max_pixels) from None
    except Exception as error:  # crafted files make Pillow and its plugins raise nearly anything
        raise _decoder_error(error, header.format) from None
    # Pillow has turned a TIFF by now
    turn = 1 if header.format == "TIFF" else header.orientation
    return DecodedImage(
        pixels=_upright(pixels, turn),
        width=header.width,
        height=header.height,
        scale=1.0 / factor,
        format=header.format,
        orientation=header.orientation,
    )


def _open(data: bytes | memoryview, max_pixels: int) -> Image.Image:
    if len(data) == 0:
        raise ImageError("empty_file", "The file is empty.")
    start = bytes(data[:32])
    formats: tuple[str, ...] = _FORMATS
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and start[8:12] not in _AVIF_BRANDS:
        formats = _heif_formats()
    if start.startswith(b"\xff\xd8"):
        check_jpeg(data if isinstance(data, bytes) else bytes(data))
    Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own watch then holds at the same ceiling
    try:
        image = Image.open(CountedBytes(data), formats=formats)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError("too_large", f"The image has more than {max_pixels:,} pixels (MIEN_MAX_PIXELS).") from None
    except UnidentifiedImageError:
        raise _unidentified(start, len(data)) from None
    except MemoryError:
        raise ImageError("decode_memory", "There is not enough memory to open this image.") from None
    except Exception as error:
        raise _decoder_error(error, "image") from None
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(width, height, max_pixels)
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"The header says {width} x {height} pixels.")
    return image


def _heif_formats() -> tuple[str, ...]:
    try:
        from pi_heif import register_heif_opener  # noqa: PLC0415 - it has no wheel on every platform
    except ImportError:
        raise ImageError(
            "unsupported_format", "This is a HEIC image; reading it needs the package pi-heif (`mien doctor` says how)."
        ) from None
    if "HEIF" not in Image.OPEN:
        register_heif_opener(thumbnails=False, decode_threads=1)
    return ("HEIF", "AVIF")


def _unidentified(start: bytes, size: int) -> ImageError:
    for signature, name in _UNSUPPORTED:
        if start.startswith(signature):
            return ImageError("unsupported_format", f"This is a {name} file, which Mien does not read.")
    if start[4:8] == b"ftyp" and start[8:12] not in _HEIF_BRANDS | _AVIF_BRANDS:
        return ImageError("unsupported_format", "This is a video or a container that Mien does not read.")
    for signature, name in (
        (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"), (b"RIFF", "WebP"),
        (b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"),
    ):  # fmt: skip
        if start.startswith(signature):
            return ImageError("corrupt", f"The file starts as {name} but its header cannot be read ({size:,} bytes).")
    if start[4:8] == b"ftyp":
        return ImageError("corrupt", f"The file starts as AVIF or HEIC but cannot be read ({size:,} bytes).")
    return ImageError("not_an_image", "The content is not an image in any format that Mien knows.")


def _too_large(width: int, height: int, max_pixels: int) -> ImageError:
    return ImageError(
        "too_large",
        f"The image has {width} x {height} = {width * height:,} pixels, more than the ceiling of {max_pixels:,} "
        "(MIEN_MAX_PIXELS).",
    )


def _decoder_error(error: BaseException, name: str) -> ImageError:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    lowered = text.lower()
    if "truncated" in lowered or "premature end" in lowered or "broken data stream" in lowered or "eof" in lowered:
        return ImageError("truncated", f"The {name} data ends too early ({text}).")
    return ImageError("corrupt", f"The {name} data cannot be decoded ({text}).")


def _header(image: Image.Image) -> Header:
    name = _NAMES.get(image.format or "", image.format or "unknown")
    orientation = _orientation(image)
    width, height = image.size
    # Pillow turns the size of a TIFF itself, and its pixels when they are loaded
    if name == "TIFF":
        return Header(name, width, height, orientation)
    if orientation >= 5:
        width, height = height, width
    return Header(name, width, height, orientation)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:
        return 1  # a broken EXIF block says nothing about the pixels
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode_jpeg(data: bytes | memoryview, image: Image.Image, min_side: int | None) -> tuple[RGB, int]:
    """Not turned yet; and the factor by which it was reduced."""
    factor = _factor(max(image.size), min_side, (8, 4, 2))
    space = "CMYK" if image.mode == "CMYK" else "RGB"
    wanted: dict[str, Any] = {
        "colorspace": space,
        "min_width": -(-image.width // factor),
        "min_height": -(-image.height // factor),
    }
    try:
        pixels = simplejpeg.decode_jpeg(data, strict=True, **wanted)
    except ValueError as error:
        text = str(error)
        if any(part in text for part in _JPEG_TRUNCATED):
            raise ImageError("truncated", f"The JPEG data ends too early ({text}).") from None
        if any(part in text for part in _JPEG_CORRUPT):
            raise ImageError("corrupt", f"The JPEG data is damaged ({text}).") from None
        if any(part in text for part in _JPEG_UNSUPPORTED):
            raise ImageError("unsupported_format", f"This kind of JPEG is not supported ({text}).") from None
        try:  # a warning that does no harm
            pixels = simplejpeg.decode_jpeg(data, strict=False, **wanted)
        except ValueError:  # libjpeg-turbo's simple interface does not know rare samplings; Pillow's way does
            return _decode_other(image, min_side)
    if space == "CMYK":
        if "adobe" in image.info:  # Adobe stores inks inverted
            np.subtract(255, pixels, out=pixels)
        pixels = np.asarray(Image.fromarray(pixels, "CMYK").convert("RGB"))
    return pixels, factor


def _decode_other(image: Image.Image, min_side: int | None) -> tuple[RGB, int]:
    image.load()
    factor = _factor(max(image.size), min_side, range(64, 1, -1))
    # reduced before it is converted where that gives the same: it saves most of the memory of a large image
    early = image.mode in ("L", "LA", "RGB", "RGBA") and "transparency" not in image.info
    if early and factor > 1:
        image = image.reduce(factor)
    rgb = _to_rgb(image)
    if not early and factor > 1:
        rgb = rgb.reduce(factor)
    return np.array(rgb, dtype=np.uint8), factor


def _factor(longer: int, min_side: int | None, choices: Any) -> int:
    """The largest of ``choices`` (descending) that keeps ``longer`` at ``min_side`` or more; else 1."""
    if min_side is None:
        return 1
    return next((factor for factor in choices if -(-longer // factor) >= min_side), 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _from_levels(np.asarray(image).astype(np.uint16) >> 8)
    if image.mode == "I":
        return _from_levels(_integers_to_levels(np.asarray(image)))
    if image.mode == "F":
        return _from_levels(_floats_to_levels(np.asarray(image)))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    if image.mode in ("1", "L", "P", "CMYK", "YCbCr", "RGBX", "HSV"):
        return image.convert("RGB")
    raise ImageError("unsupported_format", f"The colour mode {image.mode!r} is not supported.")


def _from_levels(levels: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray(levels.astype(np.uint8), "L").convert("RGB")


def _integers_to_levels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """32 bit integers: taken as 16 bit (the usual content), or as full 32 bit where they go beyond."""
    shift = 8 if int(values.max()) <= 0xFFFF else 23
    levels: npt.NDArray[Any] = np.clip(values >> shift, 0, 255)
    return levels


def _floats_to_levels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Floats: 0 to 1, 0 to 255 or 0 to 65535, whichever the largest value fits; what is not a number is black."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(finite.max())
    unit = 255.0 if highest <= 1 else 1.0 if highest <= 255 else 1 / 257
    levels: npt.NDArray[Any] = np.clip(np.rint(finite * unit), 0, 255)
    return levels


def _upright(pixels: RGB, orientation: int) -> RGB:
    """Turn by the EXIF orientation (TIFF 6.0, tag 274): 2 mirrored, 3 by 180, 4 flipped, 5 to 8 transposed ones."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
