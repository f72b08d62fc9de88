"""What the supervisor and its engines say to each other. Plain data; importable without any native library.

On the wire it is JSON, not pickle: an engine decodes files from strangers, and what comes out of it is never executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Outcome = Literal["ok", "no_face", "failed"]
MAX_MESSAGE_BYTES = 64 << 20
"""Of what an engine says. What it is told comes from its parent, and may hold a whole image."""


@dataclass(frozen=True)
class EngineSpec:
    """Everything about a job that decides what an engine answers for an image."""

    model_folder: str
    model_revision: str
    device: str
    precision: str
    faces: str
    """``detect``: find the faces; ``whole``: the image is a crop already."""
    detect_size: int
    min_face_score: float
    min_face: int
    max_pixels: int
    max_file_bytes: int


@dataclass(frozen=True)
class ImageTask:
    """One image to classify: ``path`` relative to ``root``, both as bytes. ``key`` comes back with its result.

    With ``identity`` the root has to be that folder (``mien.sources.folder_identity``). With ``data`` the image is
    these bytes, and no file is opened.
    """

    key: int
    root: bytes
    path: bytes
    data: bytes | None = field(default=None, repr=False)
    identity: str | None = None


@dataclass(frozen=True)
class FaceResult:
    """One face: its box in pixels of the full upright image, the detector's score (None for a whole image), and the
    probability of each of the model's labels, in their order."""

    x: float
    y: float
    width: float
    height: float
    score: float | None
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class ImageResult:
    """What became of one image. Faces are in order: the largest is number 0."""

    key: int
    outcome: Outcome
    error_code: str | None = None
    error: str | None = None
    width: int | None = None
    height: int | None = None
    sha256: bytes | None = None
    bytes: int | None = None
    """Size of the file."""
    format: str | None = None
    faces: tuple[FaceResult, ...] = ()
    read_s: float = 0.0
    """Seconds worked per stage, and waited: see ``mien.stage_times``."""
    read_wait_s: float = 0.0
    decode_s: float = 0.0
    decode_wait_s: float = 0.0
    detect_s: float = 0.0
    detect_wait_s: float = 0.0
    classify_s: float = 0.0
    classify_wait_s: float = 0.0


def pack(kind: str, **content: Any) -> bytes:
    """A message as bytes; ``kind`` says which."""
    return json.dumps({"kind": kind, **content}, separators=(",", ":")).encode()


def unpack(message: bytes) -> dict[str, Any]:
    """The content of a message, with its ``kind``; bytes that follow it are its ``data``.

    Raises:
        ValueError: it is not a message.
    """
    end = message.find(b"\n")  # JSON on one line, then perhaps raw bytes
    content = json.loads(message if end < 0 else message[:end])
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise ValueError("not a message")
    if end >= 0:
        content["data"] = message[end + 1 :]
    return content


def pack_spec(number: int, spec: EngineSpec) -> bytes:
    """Tell an engine what ``number`` stands for from now on."""
    return pack("spec", number=number, **asdict(spec))


def unpack_spec(content: dict[str, Any]) -> EngineSpec:
    """The spec in a ``spec`` message."""
    return EngineSpec(**{field.name: content[field.name] for field in fields(EngineSpec)})


@dataclass(frozen=True)
class Handed:
    """An image on its way to an engine under a ticket; ``first``: before all others that wait; ``alone``: it is
    suspected of ending engines."""

    ticket: int
    spec: int
    task: ImageTask
    first: bool
    alone: bool = False


def pack_images(images: Sequence[Handed]) -> Iterator[bytes]:
    """Hand an engine images: those that are files in one message, each that travels along in one of its own."""
    files = [_image(image) for image in images if image.task.data is None]
    if files:
        yield pack("images", images=files)
    for image in images:
        if image.task.data is not None:
            yield b"".join((pack("images", images=[_image(image)]), b"\n", image.task.data))


def unpack_images(content: dict[str, Any]) -> list[Handed]:
    """The images of an ``images`` message; their tickets are the tasks' keys."""
    return [
        Handed(image["ticket"], image["spec"], _task(image, content.get("data")), image["first"], image["alone"])
        for image in content["images"]
    ]


def _image(image: Handed) -> dict[str, Any]:
    return {
        "ticket": image.ticket,
        "spec": image.spec,
        "root": image.task.root.decode("latin-1"),  # any byte string survives latin-1 and back
        "path": image.task.path.decode("latin-1"),
        "identity": image.task.identity,
        "first": image.first,
        "alone": image.alone,
    }


def _task(content: dict[str, Any], data: bytes | None) -> ImageTask:
    root, path = content["root"].encode("latin-1"), content["path"].encode("latin-1")
    return ImageTask(content["ticket"], root, path, data, content["identity"])


def pack_results(results: Sequence[ImageResult]) -> bytes:
    """Results on their way back, in one message: whoever hears them wakes once. Their keys are the tickets."""
    return pack("results", results=[_result(result) for result in results])


def _result(result: ImageResult) -> dict[str, Any]:
    content = {field.name: getattr(result, field.name) for field in fields(ImageResult)}
    content["sha256"] = None if result.sha256 is None else result.sha256.hex()
    content["faces"] = [[f.x, f.y, f.width, f.height, f.score, f.probabilities] for f in result.faces]
    return content


def unpack_result(content: dict[str, Any], key: int) -> ImageResult:
    """A result of a ``results`` message, under the key of its task."""
    values = {field.name: content[field.name] for field in fields(ImageResult)}
    values["key"] = key
    values["sha256"] = None if content["sha256"] is None else bytes.fromhex(content["sha256"])
    values["faces"] = tuple(
        FaceResult(x, y, width, height, score, tuple(shares)) for x, y, width, height, score, shares in content["faces"]
    )
    return ImageResult(**values)
