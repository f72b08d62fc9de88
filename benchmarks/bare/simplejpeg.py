"""Stands in for simplejpeg on a bare machine: Pillow's decoder, which scales in the DCT domain as well."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def decode_jpeg(
    data: bytes,
    *,
    colorspace: str = "RGB",
    strict: bool = True,
    min_width: int = 0,
    min_height: int = 0,
    **_: Any,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The pixels (H x W x channels) at the smallest scale that keeps the sizes asked for."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    if min_width and min_height:
        image.draft(colorspace, (min_width, min_height))
    try:
        return np.asarray(image.convert(colorspace))
    except OSError as error:
        raise ValueError(f"Premature end of JPEG file ({error})" if strict else str(error)) from None
