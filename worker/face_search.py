"""Where the faces of a picture are: YuNet as an ONNX Runtime session, its boxes in pixels of the full upright image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mien.images import RGB, DecodedImage
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
LARGEST_GLANCED = 2 * COARSE_SEARCH
"""Up to this longer side a glance at a quarter of it says if a coarse search is needed; beyond, a glance would cost
as much as that search."""
GLANCE_FACE = 360
"""A face this long, in pixels of the fine search, calls for a coarse one: up to 400 the fine search finds all."""
GLANCE_SCORE = 0.5
_MEAN_OF_FOUR = np.tile(np.eye(3, dtype=np.float32), (4, 1)) / 16
"""From the summed channels of four pixels side by side, each over four rows, to their mean."""
MOSTLY_INSIDE = 0.8
"""Share of the smaller of two boxes inside the other above which they are not two faces."""


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
        fine = [reduced(image.pixels, detect_size) for image in images]
        needed = self.calls_for_coarse(fine)
        coarse = [coarser(pixels) if yes else [] for pixels, yes in zip(fine, needed, strict=True)]
        searches = [(i, level) for i, pixels in enumerate(fine) for level in (pixels, *coarse[i])]
        found: list[list[Boxes]] = [[] for _ in images]
        results = self._search([pixels for _, pixels in searches], min_score)
        for (i, pixels), (boxes, scores) in zip(searches, results, strict=True):
            found[i].append((_in_full_image(boxes, images[i], pixels.shape), scores))
        return [_faces(boxes, image, min_face) for boxes, image in zip(found, images, strict=True)]

    def calls_for_coarse(self, fine: Sequence[RGB]) -> list[bool]:
        """Whether each picture of a fine search may hold a face too large for it: none where nothing is lost without
        the coarse search, each where a glance would be no cheaper, and otherwise those where a glance shows one."""
        longer = [max(pixels.shape) for pixels in fine]
        glanced = [i for i, side in enumerate(longer) if LARGEST_SINGLE_SEARCH < side <= LARGEST_GLANCED]
        glanced = [i for i in glanced if min(fine[i].shape[:2]) >= GLANCE_FACE // 2]  # no such face fits into a strip
        large = [side > LARGEST_GLANCED for side in longer]
        for i, (boxes, _) in zip(glanced, self._search([quarter(fine[i]) for i in glanced], GLANCE_SCORE), strict=True):
            large[i] = bool((4 * boxes[:, 2:] >= GLANCE_FACE).any())
        return large

    def _search(self, pictures: Sequence[RGB], min_score: float) -> list[Boxes]:
        """Boxes (left, top, width, height in pixels of the picture) and scores; pictures of one shape go together."""
        found: dict[int, Boxes] = {}
        for shape in sorted({pixels.shape for pixels in pictures}):
            same = [i for i, pixels in enumerate(pictures) if pixels.shape == shape]
            pixels = _padded([pictures[i] for i in same])
            squares, heads = self._session.run(["squares", "heads"], {"pixels": pixels})
            _, height, width, _ = pixels.shape
            for at, i in enumerate(same):
                found[i] = _decoded(squares[at], heads[at], height, width, min_score)
        return [found[i] for i in range(len(pictures))]


def reduced(pixels: RGB, detect_size: int) -> RGB:
    """What the fine search looks at: the picture with a longer side of ``detect_size``, never enlarged."""
    height, width, _ = pixels.shape
    longer = max(height, width)
    if longer <= detect_size:
        return pixels
    size = (max(1, round(width * detect_size / longer)), max(1, round(height * detect_size / longer)))
    # reducing_gap first averages whole pixels: twice the speed of the plain filter at the same boxes
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def coarser(pixels: RGB) -> list[RGB]:
    """What coarse searches look at, as YuNet misses faces of more than about 500 pixels: smaller copies, down to one in
    which a face that fills the picture is found."""
    image, levels = Image.fromarray(pixels), []
    while (longer := max(image.size)) > LARGEST_SINGLE_SEARCH:
        image = image.reduce(min(4, -(-longer // COARSE_SEARCH)))
        levels.append(np.asarray(image))
    return levels


def quarter(pixels: RGB) -> RGB:
    """What a glance looks at: the mean of each 4 x 4 pixels; what is left over at the edges falls away. It takes two
    thirds of the time of Pillow's ``reduce``."""
    height, width = (side - side % 4 for side in pixels.shape[:2])
    rows = pixels[:height, :width].reshape(height // 4, 4, 3 * width)
    sums = np.add(rows[:, 0], rows[:, 1], dtype=np.uint16)
    sums += rows[:, 2]
    sums += rows[:, 3]
    means = sums.reshape(-1, 12).astype(np.float32) @ _MEAN_OF_FOUR
    return means.astype(np.uint8).reshape(height // 4, width // 4, 3)


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


def _decoded(squares: Floats, heads: Floats, height: int, width: int, min_score: float) -> Boxes:
    """The boxes in a padded picture, out of the network's outputs: score = sqrt(class x object), centre = (cell +
    offset) x stride, size = exp(log size) x stride (Wu et al. 2023, and OpenCV's FaceDetectorYN)."""
    likely = np.flatnonzero(squares >= np.float32(min_score) ** 2)
    firsts = np.cumsum([0, *((height // stride) * (width // stride) for stride in STRIDES[:-1])])
    level = np.searchsorted(firsts, likely, side="right") - 1
    stride = np.array(STRIDES)[level]
    row, column = np.divmod(likely - firsts[level], width // stride)
    corner, scale = np.stack([column, row], axis=1), stride[:, None].astype(np.float32)
    centres = (corner + heads[likely, :2]) * scale
    sizes = np.exp(heads[likely, 2:4]) * scale
    return np.concatenate([centres - sizes / 2, sizes], axis=1).astype(np.float32), np.sqrt(squares[likely])


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
