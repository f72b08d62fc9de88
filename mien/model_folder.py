"""Model folders: what a classifier's folder says about itself, read and checked without torch.

A model folder is a Hugging Face folder (``config.json``, ``model.safetensors``, ``preprocessor_config.json``) with
``mien.json`` beside it, which says what the classifier's crops look like and which ONNX exports there are.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mien.errors import ModelError

MIEN_FORMAT = 1
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
MIEN = "mien.json"

Resize = Literal["exact", "shortest_edge"]
Resample = Literal["bicubic", "bilinear", "lanczos", "nearest"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
DEVICE_PRECISIONS: Mapping[str, tuple[Precision, ...]] = {"cpu": ("fp32", "int8"), "cuda": ("fp32", "bf16", "fp16")}
"""In what the workers of each class of device take jobs."""
PRECISIONS: tuple[str, ...] = get_args(Precision)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class InputSpec:
    """How a crop becomes the classifier's input, as the checkpoint's own image processor does it."""

    height: int
    width: int
    resize: Resize
    shortest_edge: int | None
    """Length of the shorter side after resizing, before the centre crop; only with ``shortest_edge``."""
    resample: Resample
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def smallest_side(self) -> int:
        """Pixels of the shorter side below which a crop would be enlarged."""
        return self.shortest_edge or max(self.height, self.width)


@dataclass(frozen=True)
class CropSpec:
    """How a face's box becomes a crop."""

    margin: float
    """Share of the box's longer side that is added on each side of the square around it."""
    grey: bool
    """Whether the crop is converted to luma, copied to three channels."""


@dataclass(frozen=True)
class Model:
    """A checked model folder."""

    name: str
    revision: str
    """SHA-256 (hex) over the files that decide the answers; see :func:`revision_of`."""
    folder: Path
    labels: tuple[str, ...]
    input: InputSpec
    crop: CropSpec
    onnx: tuple[tuple[str, str], ...]
    """(precision, file name) of each ONNX export."""
    has_weights: bool
    """Whether there are safetensors, so that torch can run it."""
    notes: str
    """What was assumed when the folder was packaged; empty if nothing."""

    @property
    def precisions(self) -> dict[str, tuple[str, ...]]:
        """Device -> the precisions in which its workers take jobs with this folder."""
        exported = {precision for precision, _ in self.onnx}
        with_torch = {"fp32", "bf16", "fp16"} if self.has_weights else set()
        able = {"cpu": exported | with_torch, "cuda": with_torch}
        return {device: tuple(p for p in given if p in able[device]) for device, given in DEVICE_PRECISIONS.items()}

    def onnx_file(self, precision: str) -> Path | None:
        """The ONNX export at ``precision``, or None."""
        name = dict(self.onnx).get(precision)
        return self.folder / name if name else None


def load_model(folder: Path | str) -> Model:
    """Read and check a model folder.

    Raises:
        ModelError: ``model_missing``, ``model_incomplete``, ``model_config``, ``model_labels``; the sentence names the
            file and field.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {str(folder)!r}.", code="model_missing")
    labels = _labels(_read_json(folder, CONFIG), folder)
    spec = _read_json(folder, MIEN)
    if spec.get("format") != MIEN_FORMAT:
        raise _bad(folder, MIEN, "format", f"is {spec.get('format')!r}; this Mien reads format {MIEN_FORMAT}")
    name = spec.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _bad(folder, MIEN, "name", "must be 1 to 64 of a-z, 0-9, '.', '_', '-', the first a letter or digit")
    onnx = _onnx_files(spec, folder)
    has_weights = any(folder.glob("*.safetensors"))
    if not onnx and not has_weights:
        raise ModelError(
            f"The model folder {str(folder)!r} has neither an ONNX export nor *.safetensors: there is nothing to run.",
            code="model_incomplete",
        )
    notes = spec.get("notes", "")
    return Model(
        name=name,
        revision=revision_of(folder),
        folder=folder.absolute(),
        labels=labels,
        input=_input_spec(spec.get("input"), folder),
        crop=_crop_spec(spec.get("crop"), folder),
        onnx=onnx,
        has_weights=has_weights,
        notes=notes if isinstance(notes, str) else json.dumps(notes),
    )


def revision_of(folder: Path | str) -> str:
    """SHA-256 (hex) over the sorted names and SHA-256 digests of the files that decide a model's answers.

    Raises:
        ModelError: a file cannot be read.
    """
    folder = Path(folder)
    total = hashlib.sha256()
    try:
        for path in sorted(deciding_files(folder), key=lambda path: path.name):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.name}\0{digest}\n".encode())
    except OSError as error:
        raise ModelError(f"{error.filename!r} cannot be read: {error.strerror}.", code="model_incomplete") from None
    return total.hexdigest()


def deciding_files(folder: Path) -> list[Path]:
    """The files of a model folder that decide its answers, in no order."""
    named = [folder / name for name in (CONFIG, PREPROCESSOR, MIEN) if (folder / name).exists()]
    return [*named, *folder.glob("*.safetensors"), *folder.glob("*.onnx")]


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        hint = "; `mien models add` packages a Hugging Face folder" if name == MIEN else ""
        raise ModelError(f"The model folder {str(folder)!r} has no {name}{hint}.", code="model_incomplete") from None
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error.strerror}.", code="model_incomplete") from None
    except ValueError as error:
        raise ModelError(f"{str(path)!r} is not valid JSON: {error}.", code="model_config") from None
    if not isinstance(value, dict):
        raise ModelError(f"{str(path)!r} must hold a JSON object.", code="model_config")
    return value


def _bad(folder: Path, name: str, field: str, problem: str) -> ModelError:
    code = "model_labels" if field.startswith("id2label") else "model_config"
    return ModelError(f"{name} in the model folder {str(folder)!r}: {field} {problem}.", code=code)


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    table = config.get("id2label")
    if not isinstance(table, dict) or not table:
        raise _bad(folder, CONFIG, "id2label", "is missing or empty: the labels come from there and nowhere else")
    try:
        numbered = {int(key): value for key, value in table.items()}
    except ValueError:
        raise _bad(folder, CONFIG, "id2label", "has a key that is not a number") from None
    if sorted(numbered) != list(range(len(table))):
        raise _bad(folder, CONFIG, "id2label", f"must number its labels 0 to {len(table) - 1} without gaps")
    labels = tuple(numbered[i] for i in range(len(numbered)))
    if any(not isinstance(label, str) or not label.strip() for label in labels):
        raise _bad(folder, CONFIG, "id2label", "has a label that is no text")
    if len(set(labels)) != len(labels):
        raise _bad(folder, CONFIG, "id2label", "has the same label twice")
    if len(labels) < 2:
        raise _bad(folder, CONFIG, "id2label", "has a single label; a classifier needs two or more")
    generic = [label for label in labels if re.fullmatch(r"LABEL_\d+", label)]
    if generic:
        raise _bad(folder, CONFIG, "id2label", f"has the placeholder {generic[0]!r} where a name is needed")
    return labels


def _onnx_files(spec: Mapping[str, Any], folder: Path) -> tuple[tuple[str, str], ...]:
    table = spec.get("onnx") or {}
    if not isinstance(table, dict):
        raise _bad(folder, MIEN, "onnx", "must be an object of precision and file name")
    files = []
    for precision, name in sorted(table.items()):
        if name is None:
            continue
        if precision not in ("fp32", "int8"):
            raise _bad(folder, MIEN, f"onnx.{precision}", "is no precision of an export (fp32, int8)")
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".onnx"):
            raise _bad(folder, MIEN, f"onnx.{precision}", "must be the name of a .onnx file in the same folder")
        if not (folder / name).is_file():
            raise ModelError(
                f"mien.json in the model folder {str(folder)!r} names {name}, which is not there.",
                code="model_incomplete",
            )
        files.append((precision, name))
    return tuple(files)


def _input_spec(value: Any, folder: Path) -> InputSpec:
    fields = _object(value, "input", folder)
    height, width = (_whole(fields, f"input.{side}", folder, 8, 4096) for side in ("height", "width"))
    resize = _choice(fields, "input.resize", get_args(Resize), folder)
    shortest = None
    if resize == "shortest_edge":
        shortest = _whole(fields, "input.shortest_edge", folder, 8, 4096)
        if shortest < max(height, width):
            raise _bad(folder, MIEN, "input.shortest_edge", f"must be at least {max(height, width)}, the crop after it")
    mean, std = (_triple(fields, f"input.{name}", folder) for name in ("mean", "std"))
    if min(std) <= 0:
        raise _bad(folder, MIEN, "input.std", "must be above 0 in each channel")
    return InputSpec(
        height=height,
        width=width,
        resize=resize,
        shortest_edge=shortest,
        resample=_choice(fields, "input.resample", get_args(Resample), folder),
        rescale=_number(fields, "input.rescale", folder, 0.0, 1.0),
        mean=mean,
        std=std,
    )


def _crop_spec(value: Any, folder: Path) -> CropSpec:
    fields = _object(value, "crop", folder)
    grey = fields.get("grey")
    if not isinstance(grey, bool):
        raise _bad(folder, MIEN, "crop.grey", "must be true or false")
    return CropSpec(margin=_number(fields, "crop.margin", folder, -0.4, 4.0), grey=grey)


def _object(value: Any, field: str, folder: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(folder, MIEN, field, "is missing")
    return value


def _field(fields: Mapping[str, Any], field: str) -> Any:
    return fields.get(field.rpartition(".")[2])


def _whole(fields: Mapping[str, Any], field: str, folder: Path, low: int, high: int) -> int:
    value = _field(fields, field)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _bad(folder, MIEN, field, f"must be a whole number from {low} to {high}, not {value!r}")
    return value


def _number(fields: Mapping[str, Any], field: str, folder: Path, low: float, high: float) -> float:
    value = _field(fields, field)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise _bad(folder, MIEN, field, f"must be a number from {low} to {high}, not {value!r}")
    return float(value)


def _triple(fields: Mapping[str, Any], field: str, folder: Path) -> tuple[float, float, float]:
    value = _field(fields, field)
    if (
        not isinstance(value, list)
        or len(value) != 3
        or any(not isinstance(v, (int, float)) or isinstance(v, bool) or not math.isfinite(v) for v in value)
    ):
        raise _bad(folder, MIEN, field, f"must be three numbers, not {value!r}")
    return (float(value[0]), float(value[1]), float(value[2]))


def _choice(fields: Mapping[str, Any], field: str, choices: tuple[Any, ...], folder: Path) -> Any:
    value = _field(fields, field)
    if value not in choices:
        raise _bad(folder, MIEN, field, f"must be one of {', '.join(choices)}, not {value!r}")
    return value
