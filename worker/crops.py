"""What a classifier is given of a picture: the square around a face, or the whole, at the model's size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from mien.images import RGB, DecodedImage
from mien.model_folder import CropSpec, InputSpec
from worker.face_search import Face

Floats = npt.NDArray[np.float32]

WHOLE_MARGIN = 4
"""A whole image is decoded at this many times the model's input or more: the pixels fed are then those of a full decode
within 0.2 grey levels on average, and 95% of the probabilities within 0.01 (2 would be 0.015)."""
CROP_MARGIN = 2
"""A second decode for small faces gives the smallest at least this many times the model's input."""
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def crop_side(face: Face, crop: CropSpec) -> float:
    """Side of the square that is cropped around a face, in pixels of the full image."""
    return max(face.width, face.height) * (1 + 2 * crop.margin)


def side_needed(image: DecodedImage, faces: Sequence[Face], crop: CropSpec, spec: InputSpec) -> int | None:
    """The ``min_side`` with which to decode again so that every face fills the model's input; None if they do now,
    or if the image is decoded at full size already."""
    if image.scale >= 1 or not faces:
        return None
    smallest = min(crop_side(face, crop) for face in faces)
    if smallest * image.scale >= spec.smallest_side:
        return None
    longer = max(image.width, image.height)
    return min(longer, math.ceil(longer * CROP_MARGIN * spec.smallest_side / max(smallest, 1.0)))


def crop_face(image: DecodedImage, face: Face, crop: CropSpec, spec: InputSpec) -> RGB:
    """The classifier's input for one face: ``spec.height`` x ``spec.width`` x 3, uint8, not yet normalised.

    The crop is the square around the box with its margin; outside the image the edge pixels are repeated. It does not
    depend on the size at which the image was decoded, beyond resampling.
    """
    side = max(crop_side(face, crop) * image.scale, 1.0)
    left = (face.x + face.width / 2) * image.scale - side / 2
    top = (face.y + face.height / 2) * image.scale - side / 2
    first_x, first_y = math.floor(left), math.floor(top)
    last_x, last_y = math.ceil(left + side), math.ceil(top + side)
    region = _region(image.pixels, first_x, first_y, last_x, last_y)
    box = (left - first_x, top - first_y, left - first_x + side, top - first_y + side)
    return _resized(Image.fromarray(region), box, crop.grey, spec)


def _region(pixels: RGB, left: int, top: int, right: int, bottom: int) -> RGB:
    """A rectangle that may reach beyond the picture, where the edge pixels repeat; some of it lies inside."""
    height, width, _ = pixels.shape
    inside = pixels[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    beyond = ((max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)), (0, 0))
    if any(before or after for before, after in beyond):
        return np.pad(inside, beyond, mode="edge")
    return np.ascontiguousarray(inside)


def crop_whole(image: DecodedImage, crop: CropSpec, spec: InputSpec) -> RGB:
    """The classifier's input for an image that is a crop already: all of it, as the checkpoint's processor takes it."""
    height, width, _ = image.pixels.shape
    return _resized(Image.fromarray(image.pixels), (0.0, 0.0, float(width), float(height)), crop.grey, spec)


def whole_side(width: int, height: int, spec: InputSpec) -> int:
    """The ``min_side`` at which to decode a whole image of this size."""
    longer, shorter = max(width, height), max(1, min(width, height))
    return min(longer, math.ceil(WHOLE_MARGIN * spec.smallest_side * longer / shorter))


def _resized(region: Image.Image, box: tuple[float, float, float, float], grey: bool, spec: InputSpec) -> RGB:
    if grey:
        region = region.convert("L")
    resample = _FILTERS[spec.resample]
    if spec.resize == "exact":
        sized = region.resize((spec.width, spec.height), resample, box=box)
    else:
        across, down = box[2] - box[0], box[3] - box[1]
        shortest = spec.shortest_edge or max(spec.height, spec.width)
        # as Hugging Face's get_resize_output_image_size: the shorter side exactly, the longer one rounded down
        longest = max(shortest, int(shortest * max(across, down) / min(across, down)))
        size = (shortest, longest) if across <= down else (longest, shortest)
        sized = region.resize(size, resample, box=box)
        left, top = (size[0] - spec.width) // 2, (size[1] - spec.height) // 2
        sized = sized.crop((left, top, left + spec.width, top + spec.height))
    pixels = np.asarray(sized)
    return np.repeat(pixels[:, :, None], 3, axis=2) if grey else np.array(pixels)


def model_input(crops: Sequence[RGB], spec: InputSpec) -> Floats:
    """Crops (H x W x 3, uint8) as the network takes them: N x 3 x H x W, float32, rescaled and normalised."""
    batch = np.stack(crops).astype(np.float32)
    batch *= np.float32(spec.rescale)
    batch -= np.asarray(spec.mean, np.float32)
    batch /= np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
