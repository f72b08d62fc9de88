"""Crops for training and judging, made by the worker's own detector and resampling."""

from __future__ import annotations

from pathlib import Path

from mien.images import RGB, DecodedImage, decode
from mien.model_folder import CropSpec, InputSpec
from mien.pipeline import DEFAULT_DETECT_SIZE, DEFAULT_MIN_FACE_SCORE
from worker.crops import crop_face, crop_whole
from worker.face_search import FaceDetector


class Cropper:
    """Image -> crop of its largest face (``detect``) or of all of it; None where no face is found."""

    def __init__(
        self,
        crop: CropSpec,
        spec: InputSpec,
        *,
        detect: bool,
        detect_size: int = DEFAULT_DETECT_SIZE,
        min_score: float = DEFAULT_MIN_FACE_SCORE,
    ) -> None:
        self.crop, self.spec = crop, spec
        self.detect_size, self.min_score = detect_size, min_score
        self._detector = FaceDetector() if detect else None

    def __call__(self, image: DecodedImage) -> RGB | None:
        """The crop, uint8 [H, W, 3], of ``spec``'s size."""
        if self._detector is None:
            return crop_whole(image, self.crop, self.spec)
        (faces,) = self._detector.detect([image], detect_size=self.detect_size, min_score=self.min_score)
        return crop_face(image, faces[0], self.crop, self.spec) if faces else None


def read_image(path: Path) -> DecodedImage:
    """Decode a file at its full size.

    Raises:
        ImageError, OSError: it cannot be read.
    """
    return decode(path.read_bytes())


def square_input(size: int, *, resample: str = "bicubic") -> InputSpec:
    """An input of ``size`` x ``size`` pixels to which crops are resized exactly."""
    return InputSpec(size, size, "exact", None, resample, 1 / 255, (0.0,) * 3, (1.0,) * 3)  # type: ignore[arg-type]
