"""The stages an engine takes images through: read, decode, find faces, crop, classify."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mien.errors import ImageError, ModelError
from mien.faults import fault_point
from mien.images import RGB, Header, decode, probe
from mien.model_folder import load_model
from mien.sources import open_image
from mien.stage_times import Clock, add_lap
from worker.classifier import Classifier, open_classifier
from worker.faces import Face, FaceDetector, Floats, crop_face, crop_whole, side_needed, whole_side
from worker.faults import commit_faults, read_faults
from worker.messages import EngineSpec, FaceResult, ImageResult, ImageTask

CLASSIFIERS_KEPT = 2
READ_BLOCK = 4 << 20


@dataclass
class _Image:
    """An image on its way through the stages."""

    task: ImageTask
    boxes: list[tuple[float, float, float, float, float | None]] = field(default_factory=list)
    crops: list[RGB] = field(default_factory=list)
    error: ImageError | None = None
    header: Header | None = None
    size: int | None = None
    sha256: bytes | None = None
    times: dict[str, float] = field(default_factory=dict)
    """Seconds by the names of ``mien.stage_times.TIME_FIELDS``."""


class Stages:
    """Detector and classifiers of one engine process, and the way of an image through them.

    ``device`` is where classifiers run, ``cpu`` or one GPU (``cuda:N``); ``batch`` is how many crops go through a
    network at once; ``sign`` is called between steps, to show that the engine is alive.
    """

    def __init__(self, *, device: str, batch: int, sign: Callable[[], None]) -> None:
        self._device = device
        self._batch = batch
        self._sign = sign
        self._detector = FaceDetector()
        self._classifiers: OrderedDict[tuple[str, str, str], Classifier] = OrderedDict()
        self._faults = read_faults()

    def has_classifier(self, spec: EngineSpec) -> bool:
        """Whether the classifier of ``spec`` is loaded."""
        return _classifier_key(spec) in self._classifiers

    def classifier(self, spec: EngineSpec) -> Classifier:
        """The classifier of ``spec``, loaded if need be; the two used last are kept.

        Raises:
            ModelError: the folder is defective, is not the revision asked for, or cannot run as asked.
        """
        key = _classifier_key(spec)
        if key not in self._classifiers:
            model = load_model(spec.model_folder)
            if model.revision != spec.model_revision:
                raise ModelError(
                    f"The model folder {spec.model_folder!r} holds revision {model.revision[:12]}, "
                    f"not {spec.model_revision[:12]} as the job asks.",
                    code="model_changed",
                )
            while len(self._classifiers) >= CLASSIFIERS_KEPT:
                self._classifiers.popitem(last=False)
            self._classifiers[key] = open_classifier(model, self._device, spec.precision)
        self._classifiers.move_to_end(key)
        return self._classifiers[key]

    def run(self, spec: EngineSpec, tasks: Sequence[ImageTask], begin: Callable[[int], None]) -> list[ImageResult]:
        """Classify images, in order. ``begin`` is called with each key before the image's first byte is read.

        What goes wrong with one image is that image's result; ModelError and whatever else comes out of the networks
        is raised.
        """
        classifier = self.classifier(spec)
        images = []
        for task in tasks:
            begin(task.key)
            image = _Image(task)
            try:
                commit_faults(self._faults, task.path)
                self._prepare(image, spec, classifier)
            except ImageError as error:
                image.error = error
                image.boxes, image.crops = [], []
            images.append(image)
        fault_point("after_decode")
        probabilities = self._classify(images, classifier)
        fault_point("after_classify")
        return [_result(image, rows) for image, rows in zip(images, probabilities, strict=True)]

    def _prepare(self, image: _Image, spec: EngineSpec, classifier: Classifier) -> None:
        with _timed(image, "read"):
            data = _read(image, spec)
        if spec.faces == "whole":
            self._prepare_whole(image, data, spec, classifier)
        else:
            self._prepare_faces(image, data, spec, classifier)

    def _prepare_whole(self, image: _Image, data: bytes, spec: EngineSpec, classifier: Classifier) -> None:
        with _timed(image, "decode"):
            header = image.header = probe(data, max_pixels=spec.max_pixels)
            side = whole_side(header.width, header.height, classifier.model.input)
            decoded = decode(data, min_side=side, max_pixels=spec.max_pixels)
        with _timed(image, "classify"):
            image.crops = [crop_whole(decoded, classifier.model.crop, classifier.model.input)]
        image.boxes = [(0.0, 0.0, float(header.width), float(header.height), None)]

    def _prepare_faces(self, image: _Image, data: bytes, spec: EngineSpec, classifier: Classifier) -> None:
        model = classifier.model
        with _timed(image, "decode"):
            image.header = probe(data, max_pixels=spec.max_pixels)
            decoded = decode(data, min_side=spec.detect_size, max_pixels=spec.max_pixels)
        with _timed(image, "detect"):
            (faces,) = self._detector.detect(
                [decoded], detect_size=spec.detect_size, min_score=spec.min_face_score, min_face=spec.min_face
            )
        larger = decoded
        with _timed(image, "decode"):
            side = side_needed(decoded, faces, model.crop, model.input)
            if side is not None:
                larger = decode(data, min_side=side, max_pixels=spec.max_pixels)
        with _timed(image, "classify"):
            image.crops = [crop_face(larger, face, model.crop, model.input) for face in faces]
        image.boxes = [_box(face) for face in faces]

    def _classify(self, images: Sequence[_Image], classifier: Classifier) -> list[list[Floats]]:
        """The probabilities of each image's faces (faces x labels); crops of several images share a batch."""
        crops = [crop for image in images for crop in image.crops]
        rows: list[Floats] = []
        clock = Clock()
        for first in range(0, len(crops), self._batch):
            self._sign()
            rows.extend(classifier.classify(crops[first : first + self._batch]))
        worked, waited = (seconds / max(len(crops), 1) for seconds in clock.lap())
        if len(rows) != len(crops):
            raise AssertionError(f"{len(crops)} crops went in and {len(rows)} answers came out")
        answers: list[list[Floats]] = []
        for image in images:
            count = len(image.crops)
            answers.append(rows[:count])
            rows = rows[count:]
            add_lap(image.times, "classify", (worked * count, waited * count))
        return answers


def _classifier_key(spec: EngineSpec) -> tuple[str, str, str]:
    return (spec.model_folder, spec.model_revision, spec.precision)


class _timed:  # noqa: N801 - reads as a statement
    """Adds the time of a block to one of an image's stages, also when the block raises."""

    def __init__(self, image: _Image, stage: str) -> None:
        self._image, self._stage = image, stage

    def __enter__(self) -> None:
        self._clock = Clock()

    def __exit__(self, *_: object) -> None:
        add_lap(self._image.times, self._stage, self._clock.lap())


def _read(image: _Image, spec: EngineSpec) -> bytes:
    """The image's bytes, never more than the limit; notes their number and SHA-256."""
    data = _read_file(image.task, spec) if image.task.data is None else image.task.data
    if len(data) > spec.max_file_bytes:
        raise _file_too_large(len(data), spec.max_file_bytes)
    image.size = len(data)
    image.sha256 = hashlib.sha256(data).digest()
    return data


def _read_file(task: ImageTask, spec: EngineSpec) -> bytes:
    descriptor = open_image(task.root, task.path, task.identity)
    try:
        size = os.fstat(descriptor).st_size
        if size > spec.max_file_bytes:
            raise _file_too_large(size, spec.max_file_bytes)
        blocks = []
        total = 0
        while block := os.read(descriptor, min(READ_BLOCK, spec.max_file_bytes + 1 - total)):
            blocks.append(block)
            total += len(block)
            if total > spec.max_file_bytes:  # it grew while it was read
                raise _file_too_large(total, spec.max_file_bytes)
    except OSError as error:
        raise ImageError("unreadable", f"The file cannot be read: {os.strerror(error.errno or 0)}.") from None
    finally:
        os.close(descriptor)
    return b"".join(blocks)


def _file_too_large(size: int, limit: int) -> ImageError:
    return ImageError(
        "file_too_large", f"The file has {size:,} bytes or more; the limit is {limit:,} (MIEN_MAX_FILE_BYTES)."
    )


def _box(face: Face) -> tuple[float, float, float, float, float | None]:
    return (face.x, face.y, face.width, face.height, face.score)


def _result(image: _Image, rows: list[Floats]) -> ImageResult:
    faces = tuple(FaceResult(*box, tuple(row.tolist())) for box, row in zip(image.boxes, rows, strict=True))
    error, header = image.error, image.header
    return ImageResult(
        key=image.task.key,
        outcome="failed" if error else "ok" if faces else "no_face",
        error_code=error.code if error else None,
        error=error.detail if error else None,
        width=header.width if header else None,
        height=header.height if header else None,
        bytes=image.size,
        sha256=image.sha256,
        format=header.format if header else None,
        faces=faces,
        **image.times,
    )
