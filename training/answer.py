"""The faces of single image files, with the worker's own decoder, detector and classifier; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.errors import ImageError
from mien.images import RGB, DecodedImage
from mien.model_folder import Model
from mien.pipeline import DEFAULT_DETECT_SIZE, DEFAULT_MIN_FACE_SCORE
from training.crops import read_image
from worker.classifier import open_classifier, passes
from worker.crops import crop_face, crop_whole
from worker.face_search import Face, FaceDetector


@dataclass(frozen=True)
class AnsweredFace:
    """One face and what the model says about it."""

    box: Face
    probabilities: tuple[float, ...]
    crop: RGB


@dataclass(frozen=True)
class Answer:
    """One image file."""

    path: Path
    labels: tuple[str, ...]
    image: DecodedImage | None
    faces: tuple[AnsweredFace, ...]
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": str(self.path),
            "error": self.error,
            "faces": [
                {
                    "face": number,
                    "x": face.box.x,
                    "y": face.box.y,
                    "width": face.box.width,
                    "height": face.box.height,
                    "emotion": self.labels[face.probabilities.index(max(face.probabilities))],
                    "confidence": max(face.probabilities),
                    "probabilities": dict(zip(self.labels, face.probabilities, strict=True)),
                }
                for number, face in enumerate(self.faces)
            ],
        }


def answer(model: Model, files: Iterable[Path], *, detect: bool = True, precision: str = "fp32") -> Iterator[Answer]:
    """Answer one file after the other; a file that cannot be read is an answer with an error.

    Raises:
        ModelError: the model cannot run at this precision.
    """
    classifier = open_classifier(model, "cpu", precision)
    detector = FaceDetector() if detect else None
    for path in files:
        try:
            image = read_image(path)
        except (ImageError, OSError) as error:
            reason = getattr(error, "detail", None) or getattr(error, "strerror", None) or str(error)
            yield Answer(path, model.labels, None, (), reason)
            continue
        if detector is None:
            boxes = [Face(0.0, 0.0, float(image.width), float(image.height), 1.0)]
            crops = [crop_whole(image, model.crop, model.input)]
        else:
            (boxes,) = detector.detect([image], detect_size=DEFAULT_DETECT_SIZE, min_score=DEFAULT_MIN_FACE_SCORE)
            crops = [crop_face(image, box, model.crop, model.input) for box in boxes]
        rows = [row for part in passes(crops, model.input) for row in classifier.classify(part).tolist()]
        faces = (AnsweredFace(box, tuple(row), crop) for box, row, crop in zip(boxes, rows, crops, strict=True))
        yield Answer(path, model.labels, image, tuple(faces), None)
