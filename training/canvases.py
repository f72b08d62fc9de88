"""Images decoded once into one array: the face with its surroundings, ready for random views or for judging.

Decoding, detection and cropping are the worker's own, so that training sees what serving sees. The array lies in a
cache file and is mapped into memory: a data set larger than memory works.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mien.errors import ImageError
from mien.model_folder import CropSpec
from training.crops import Cropper, read_image, square_input
from training.data import Item

VERSION = 1
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CanvasSpec:
    """How images become canvases."""

    size: int
    """Side in pixels."""
    margin: float
    """Share of the box's longer side shown on each side of it (faces=detect)."""
    detect: bool
    grey: bool
    resample: str = "bicubic"


@dataclass(frozen=True)
class Canvases:
    """Canvases of the images that could be read."""

    pixels: Array
    """uint8 [N, C, S, S], C = 1 for grey, else 3; a memory map."""
    items: tuple[Item, ...]
    unreadable: tuple[tuple[str, str], ...]
    """(name, reason) of files that could not be read."""
    no_face: tuple[str, ...]
    """Names of images without a face (faces=detect)."""
    spec: CanvasSpec


def load_canvases(
    items: Sequence[Item], spec: CanvasSpec, cache: Path, *, progress: Callable[[int, int], None] | None = None
) -> Canvases:
    """Decode (and crop) every image, or map what an earlier call left in ``cache``."""
    key = _key(items, spec)
    pixel_file, note_file = cache / f"{key}.npy", cache / f"{key}.json"
    if not note_file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _build(items, spec, pixel_file, note_file, progress)
    note = json.loads(note_file.read_text())
    kept = tuple(items[i] for i in note["kept"])
    shape = (len(kept), 1 if spec.grey else 3, spec.size, spec.size)
    pixels = np.load(pixel_file, mmap_mode="r") if kept else np.zeros(shape, np.uint8)
    return Canvases(pixels, kept, tuple((n, r) for n, r in note["unreadable"]), tuple(note["no_face"]), spec)


def _key(items: Sequence[Item], spec: CanvasSpec) -> str:
    digest = hashlib.sha256(f"{VERSION} {spec}".encode())
    for item in items:
        stat = item.path.stat()
        digest.update(f"{item.path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _build(
    items: Sequence[Item],
    spec: CanvasSpec,
    pixel_file: Path,
    note_file: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    cropper = Cropper(
        CropSpec(spec.margin, spec.grey), square_input(spec.size, resample=spec.resample), detect=spec.detect
    )
    unreadable, no_face, kept = [], [], []
    scratch = pixel_file.with_suffix(f".{os.getpid()}.tmp")
    shape = (1 if spec.grey else 3, spec.size, spec.size)
    with scratch.open("wb") as stream:
        for position, item in enumerate(items):
            try:
                canvas = cropper(read_image(item.path))
            except ImageError as error:
                unreadable.append((item.name, error.detail))
                continue
            except OSError as error:
                unreadable.append((item.name, error.strerror or str(error)))
                continue
            if canvas is None:
                no_face.append(item.name)
                continue
            stream.write(np.ascontiguousarray(canvas.transpose(2, 0, 1)[: shape[0]]).tobytes())
            kept.append(position)
            if progress and position % 200 == 0:
                progress(position, len(items))
    if kept:
        raw = np.memmap(scratch, np.uint8, "r", shape=(len(kept), *shape))
        fresh = pixel_file.with_suffix(f".{os.getpid()}.new")
        with fresh.open("wb") as stream:
            np.save(stream, raw)
        fresh.replace(pixel_file)
    scratch.unlink()
    note = {"kept": kept, "unreadable": unreadable, "no_face": no_face}
    fresh_note = note_file.with_suffix(f".{os.getpid()}.new")
    fresh_note.write_text(json.dumps(note))
    fresh_note.replace(note_file)
