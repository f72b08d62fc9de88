"""What a checkpoint's ``preprocessor_config.json`` asks for, as the worker's :class:`InputSpec`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mien.errors import ModelError
from mien.model_folder import InputSpec, Resample, Resize

_FILTERS: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_UNSUPPORTED = {
    "do_pad": "padding",
    "do_reduce_labels": "reduced labels",
    "rescale_offset": "an offset after rescaling",
    "do_flip_channel_order": "blue before red",
    "do_center_pad": "padding",
}


def input_spec_of(folder: Path, config: dict[str, Any]) -> tuple[InputSpec, list[str]]:
    """How the checkpoint wants its input, and what had to be assumed.

    Raises:
        ModelError: the processor does something that the worker cannot do the same way.
    """
    assumed: list[str] = []
    try:
        table = json.loads((folder / "preprocessor_config.json").read_bytes())
    except FileNotFoundError:
        table = {}
        assumed.append("input size and normalisation (there is no preprocessor_config.json)")
    except ValueError:
        raise ModelError(f"{folder.name}: preprocessor_config.json is not valid JSON.", code="model_config") from None
    for key, meaning in _UNSUPPORTED.items():
        if table.get(key):
            raise ModelError(
                f"{folder.name}: its image processor uses {meaning} ({key}), which Mien does not.", code="model_config"
            )
    height, width, resize, shortest = _geometry(table, config, folder)
    resample = table.get("resample", 2)
    if resample not in _FILTERS:
        raise ModelError(f"{folder.name}: resample = {resample!r} is not supported (0 to 3 are).", code="model_config")
    normalise = table.get("do_normalize", True)
    mean = _triple(table.get("image_mean", 0.5)) if normalise else (0.0, 0.0, 0.0)
    std = _triple(table.get("image_std", 0.5)) if normalise else (1.0, 1.0, 1.0)
    rescale = float(table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 1.0
    return InputSpec(height, width, resize, shortest, _FILTERS[resample], rescale, mean, std), assumed


def _geometry(table: dict[str, Any], config: dict[str, Any], folder: Path) -> tuple[int, int, Resize, int | None]:
    size = table.get("size", config.get("image_size", 224))
    size = {"height": size, "width": size} if isinstance(size, int) else size
    if not table.get("do_resize", True):
        side = int(config.get("image_size", 224))
        return side, side, "exact", None
    crop = table.get("crop_size")
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    if "shortest_edge" in size:
        return _by_shortest_edge(table, config, int(size["shortest_edge"]), crop)
    if "height" not in size or "width" not in size:
        raise ModelError(
            f"{folder.name}: size = {size!r} in preprocessor_config.json is not supported.", code="model_config"
        )
    height, width = int(size["height"]), int(size["width"])
    if table.get("do_center_crop") and crop and (int(crop["height"]), int(crop["width"])) != (height, width):
        if height != width:
            raise ModelError(
                f"{folder.name}: a crop out of {height} x {width} pixels is not supported.", code="model_config"
            )
        # the square crop of a face is resized the same way by its shorter side
        return int(crop["height"]), int(crop["width"]), "shortest_edge", height
    return height, width, "exact", None


def _by_shortest_edge(
    table: dict[str, Any], config: dict[str, Any], shortest: int, crop: dict[str, int] | None
) -> tuple[int, int, Resize, int | None]:
    if table.get("crop_pct"):  # ConvNeXT: below 384 pixels resize to size / crop_pct and crop, else squeeze to size
        if shortest < 384:
            return shortest, shortest, "shortest_edge", int(shortest / float(table["crop_pct"]))
        return shortest, shortest, "exact", None
    if table.get("do_center_crop") and crop:
        return int(crop["height"]), int(crop["width"]), "shortest_edge", shortest
    side = int(config.get("image_size", shortest))
    return side, side, "shortest_edge", shortest


def _triple(value: Any) -> tuple[float, float, float]:
    values = [float(v) for v in (value if isinstance(value, list) else [value])]
    values = values * 3 if len(values) == 1 else values
    if len(values) != 3:
        raise ModelError(
            f"image_mean or image_std has {len(values)} numbers; one or three are supported.", code="model_config"
        )
    return values[0], values[1], values[2]
