"""Faces: YuNet as an ONNX Runtime session, its boxes in pixels of the full upright image, and the crops of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mien.images import RGB, DecodedImage
from mien.model_folder import CropSpec, InputSpec
from mien.pipeline import DEFAULT_DETECT_SIZE, DEFAULT_MIN_FACE, DEFAULT_MIN_FACE_SCORE, DETECTOR_NMS
from worker.onnx_sessions import open_session

Floats = npt.NDArray[np.float32]
Boxes = tuple[Floats, Floats]
"""Left, top, width and height (N x 4), and scores (N)."""

WEIGHTS = Path(__file__).parent / "yunet" / "face_detection_yunet_2023mar.onnx"
STRIDES = (8, 16, 32)
BOX_DIGITS = 1
"""Boxes are rounded to a tenth of a pixel, so that rounding noise between machines never changes their order."""
MAX_CANDIDATES = 5_000
LARGEST_SINGLE_SEARCH = 480
"""Up to this longer side a face that fills the picture is found; see docs/detection.md."""
COARSE_SEARCH = 400
"""The coarse search's longer side is this or less, and more than half of it."""
WHOLE_MARGIN = 4
"""A whole image is decoded at this many times the model's input or more: the pixels fed are then those of a full decode
within 0.2 grey levels on average, and 95% of the probabilities within 0.01 (2 would be 0.015)."""
CROP_MARGIN = 2
"""A second decode for small faces gives the smallest at least this many times the model's input."""
MOSTLY_INSIDE = 0.8
"""Share of the smaller of two boxes inside the other above which they are not two faces."""
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Face:
    """A face's box in pixels of the full upright image, clipped to it, and the detector's score from 0 to 1."""

    x: float
    y: float
    width: float
    height: float
    score: float


class FaceDetector:
    """YuNet (2023mar). One thread, any number of images at once; the same boxes alone and in a batch."""

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self._session = open_session(weights)
        self._outputs = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox") for stride in STRIDES]

    def detect(
        self,
        images: Sequence[DecodedImage],
        *,
        detect_size: int = DEFAULT_DETECT_SIZE,
        min_score: float = DEFAULT_MIN_FACE_SCORE,
        min_face: float = DEFAULT_MIN_FACE,
    ) -> list[list[Face]]:
        """Find the faces of each image, the largest box first, ties by y, then x.

        ``detect_size`` is the longer side, in pixels, to which an image is reduced before the search (smaller images
        are not enlarged); ``min_face`` is the shorter side of a box, in pixels of the full image, below which it is
        dropped.
        """
        found: list[list[Boxes]] = [[] for _ in images]
        searches = [(i, pixels) for i, image in enumerate(images) for pixels in pyramid(image.pixels, detect_size)]
        for shape in sorted({pixels.shape for _, pixels in searches}):  # inputs of one shape go through together
            same = [(i, pixels) for i, pixels in searches if pixels.shape == shape]
            for (i, _), (boxes, scores) in zip(same, self._run([p for _, p in same], min_score), strict=True):
                found[i].append((_in_full_image(boxes, images[i], shape), scores))
        return [_faces(boxes, image, min_face) for boxes, image in zip(found, images, strict=True)]

    def _run(self, inputs: Sequence[RGB], min_score: float) -> list[Boxes]:
        """Boxes (left, top, width, height in pixels of the input) and scores of images of one shape."""
        pixels = _padded(inputs)
        out = dict(zip(self._outputs, self._session.run(self._outputs, {"pixels": pixels}), strict=True))
        return [self._decode(out, i, pixels.shape[2], min_score) for i in range(len(inputs))]

    @staticmethod
    def _decode(out: dict[str, Any], i: int, width: int, min_score: float) -> Boxes:
        """One image's boxes out of the three maps: score = sqrt(class x object), centre = (cell + offset) x stride,
        size = exp(log size) x stride (Wu et al. 2023, and OpenCV's FaceDetectorYN)."""
        boxes, scores = [], []
        for stride in STRIDES:
            squared = out[f"cls_{stride}"][i, :, 0] * out[f"obj_{stride}"][i, :, 0]  # both come out of a sigmoid
            cells = np.flatnonzero(squared >= np.float32(min_score) ** 2)
            if not cells.size:
                continue
            offsets = out[f"bbox_{stride}"][i, cells]
            columns = width // stride
            centres = (np.stack([cells % columns, cells // columns], axis=1) + offsets[:, :2]) * stride
            sizes = np.exp(offsets[:, 2:]) * stride
            boxes.append(np.concatenate([centres - sizes / 2, sizes], axis=1))
            scores.append(np.sqrt(squared[cells]))
        if not boxes:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        return np.concatenate(boxes), np.concatenate(scores)


def pyramid(pixels: RGB, detect_size: int) -> list[RGB]:
    """What is searched of an image: it at ``detect_size`` (never enlarged) and, as YuNet misses faces of more than
    about 500 pixels, smaller copies down to one in which a face that fills the picture is found."""
    height, width, _ = pixels.shape
    longer = max(height, width)
    if longer <= LARGEST_SINGLE_SEARCH and longer <= detect_size:
        return [pixels]
    image = Image.fromarray(pixels)
    if longer > detect_size:
        size = (max(1, round(width * detect_size / longer)), max(1, round(height * detect_size / longer)))
        # reducing_gap first averages whole pixels: twice the speed of the plain filter at the same boxes
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = np.asarray(image)
    levels = [pixels]
    while (longer := max(image.size)) > LARGEST_SINGLE_SEARCH:
        image = image.reduce(min(4, -(-longer // COARSE_SEARCH)))
        levels.append(np.asarray(image))
    return levels


def _padded(inputs: Sequence[RGB]) -> npt.NDArray[np.uint8]:
    """Pictures of one shape as N x height x width x 3, black beyond their edges up to multiples of 32."""
    height, width, _ = inputs[0].shape
    if len(inputs) == 1 and height == _multiple(height) and width == _multiple(width):
        return inputs[0][None]
    padded = np.zeros((len(inputs), _multiple(height), _multiple(width), 3), np.uint8)
    for i, pixels in enumerate(inputs):
        padded[i, :height, :width] = pixels
    return padded


def _multiple(side: int) -> int:
    return -(-side // 32) * 32


def _suppressed(boxes: Floats, scores: Floats) -> Boxes:
    """Greedy non-maximum suppression: the best box stays, those that overlap it by more than the limit go, as does what
    lies within it or around it (a nose or a crowd that looked like a face at another size)."""
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    boxes, scores = boxes[order], scores[order]
    left, top = boxes[:, 0], boxes[:, 1]
    right, bottom = left + boxes[:, 2], top + boxes[:, 3]
    areas = boxes[:, 2] * boxes[:, 3]
    alive = np.ones(len(boxes), dtype=bool)
    kept = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        kept.append(i)
        across = np.minimum(right, right[i]) - np.maximum(left, left[i])
        down = np.minimum(bottom, bottom[i]) - np.maximum(top, top[i])
        shared = np.clip(across, 0, None) * np.clip(down, 0, None)
        apart = shared <= DETECTOR_NMS * (areas + areas[i] - shared)
        alive &= apart & (shared <= MOSTLY_INSIDE * np.minimum(areas, areas[i]))
    return boxes[kept], scores[kept]


def _in_full_image(boxes: Floats, image: DecodedImage, shape: tuple[int, ...]) -> Floats:
    """Boxes in pixels of a search's input of this shape, in pixels of the full image."""
    across = image.pixels.shape[1] / shape[1] / image.scale
    down = image.pixels.shape[0] / shape[0] / image.scale
    return boxes * np.array([across, down, across, down], np.float32)


def _faces(found: Sequence[Boxes], image: DecodedImage, min_face: float) -> list[Face]:
    """The faces among the boxes of all searches of an image: suppressed, clipped, filtered, in order."""
    boxes, scores = _suppressed(np.concatenate([b for b, _ in found]), np.concatenate([s for _, s in found]))
    faces = []
    for (x, y, width, height), score in zip(boxes.tolist(), scores.tolist(), strict=True):
        left, right = (round(min(max(v, 0.0), image.width), BOX_DIGITS) for v in (x, x + width))
        top, bottom = (round(min(max(v, 0.0), image.height), BOX_DIGITS) for v in (y, y + height))
        face = Face(left, top, round(right - left, BOX_DIGITS), round(bottom - top, BOX_DIGITS), score)
        if min(face.width, face.height) > 0 and min(face.width, face.height) >= min_face:
            faces.append(face)
    return sorted(faces, key=lambda f: (-round(f.width * f.height, 2), f.y, f.x))


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
    height, width, _ = image.pixels.shape
    if first_x >= 0 and first_y >= 0 and last_x <= width and last_y <= height:
        region = image.pixels[first_y:last_y, first_x:last_x]
    else:
        rows = np.clip(np.arange(first_y, last_y), 0, height - 1)
        columns = np.clip(np.arange(first_x, last_x), 0, width - 1)
        region = image.pixels[rows[:, None], columns[None, :]]
    box = (left - first_x, top - first_y, left - first_x + side, top - first_y + side)
    return _resized(Image.fromarray(np.ascontiguousarray(region)), box, crop.grey, spec)


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
