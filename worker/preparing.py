"""From a file to the crops that a classifier takes: read, decode, find faces, crop. The same on every device."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from mien.errors import ImageError
from mien.images import RGB, Header, decode, probe
from mien.model_folder import Model
from mien.sources import open_image
from mien.stage_times import Clock, add_lap
from worker.crops import crop_face, crop_whole, side_needed, whole_side
from worker.face_search import Face, FaceDetector
from worker.faults import commit_faults, read_faults
from worker.messages import EngineSpec, FaceResult, ImageResult, ImageTask
from worker.probabilities import Floats

READ_BLOCK = 4 << 20


@dataclass
class Prepared:
    """An image on its way through the stages: read, decoded, searched and cropped, or in error."""

    task: ImageTask
    boxes: list[tuple[float, float, float, float, float | None]] = field(default_factory=list)
    crops: list[RGB] = field(default_factory=list)
    error: ImageError | None = None
    header: Header | None = None
    size: int | None = None
    sha256: bytes | None = None
    times: dict[str, float] = field(default_factory=dict)
    """Seconds by the names of ``mien.stage_times.TIME_FIELDS``."""

    def result(self, rows: Sequence[Floats]) -> ImageResult:
        """What became of it; ``rows``: the probabilities of its crops, in their order."""
        faces = tuple(FaceResult(*box, tuple(row.tolist())) for box, row in zip(self.boxes, rows, strict=True))
        error, header = self.error, self.header
        return ImageResult(
            key=self.task.key,
            outcome="failed" if error else "ok" if faces else "no_face",
            error_code=error.code if error else None,
            error=error.detail if error else None,
            width=header.width if header else None,
            height=header.height if header else None,
            bytes=self.size,
            sha256=self.sha256,
            format=header.format if header else None,
            faces=faces,
            **self.times,
        )


class Preparer:
    """The face detector of one process, and the way of an image to its crops."""

    def __init__(self) -> None:
        self._detector = FaceDetector()
        self._faults = read_faults()

    def prepare(self, task: ImageTask, spec: EngineSpec, model: Model) -> Prepared:
        """Take an image up to its crops. What is wrong with it is noted in it, not raised."""
        image = Prepared(task)
        try:
            commit_faults(self._faults, task.path)
            self._prepare(image, spec, model)
        except ImageError as error:
            image.error = error
            image.boxes, image.crops = [], []
        return image

    def _prepare(self, image: Prepared, spec: EngineSpec, model: Model) -> None:
        with _timed(image, "read"):
            data = _read(image, spec)
        if spec.faces == "whole":
            self._prepare_whole(image, data, spec, model)
        else:
            self._prepare_faces(image, data, spec, model)

    def _prepare_whole(self, image: Prepared, data: bytes, spec: EngineSpec, model: Model) -> None:
        with _timed(image, "decode"):
            header = image.header = probe(data, max_pixels=spec.max_pixels)
            side = whole_side(header.width, header.height, model.input)
            decoded = decode(data, min_side=side, max_pixels=spec.max_pixels)
        with _timed(image, "classify"):
            image.crops = [crop_whole(decoded, model.crop, model.input)]
        image.boxes = [(0.0, 0.0, float(header.width), float(header.height), None)]

    def _prepare_faces(self, image: Prepared, data: bytes, spec: EngineSpec, model: Model) -> None:
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


class _timed:  # noqa: N801 - reads as a statement
    """Adds the time of a block to one of an image's stages, also when the block raises."""

    def __init__(self, image: Prepared, stage: str) -> None:
        self._image, self._stage = image, stage

    def __enter__(self) -> None:
        self._clock = Clock()

    def __exit__(self, *_: object) -> None:
        add_lap(self._image.times, self._stage, self._clock.lap())


def _read(image: Prepared, spec: EngineSpec) -> bytes:
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
