"""Packaging: a trained network becomes a model folder that the worker loads, with its exports checked and measured."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mien.errors import ModelError
from mien.model_folder import CropSpec, InputSpec, Model, load_model
from training import checkpoint
from training.canvases import CanvasSpec, load_canvases
from training.data import require_training, scan, usable
from training.networks import build_network
from training.onnx_export import check_export, export_onnx, store_shared
from training.quantise import quantise
from training.quiet import quiet
from training.recipe import Recipe, make_recipe
from worker.crops import model_input

CALIBRATION_CROPS = 512


@dataclass(frozen=True)
class Packaged:
    """A finished folder."""

    model: Model
    export_difference: float
    """Largest difference in a probability between torch and the fp32 export."""
    megabytes: dict[str, float]


def network_of(run: Path, recipe: Recipe | None = None) -> tuple[nn.Module, Recipe, dict[str, Any]]:
    """The network of a run's kept (else last) weights.

    Raises:
        RecipeError: the folder holds no run.
    """
    file = next((run / name for name in ("final.pt", "last.pt") if (run / name).exists()), run / "final.pt")
    state = checkpoint.load(file)
    recipe = recipe or make_recipe(json.loads(state["recipe"]), origin=str(file))
    model = build_network(recipe.model, tuple(state["labels"]))
    model.load_state_dict(state.get("ema") or state["weights"])
    return model.eval(), recipe, state


def packable(model: nn.Module) -> nn.Module:
    """The model as a Hugging Face image classifier.

    Raises:
        ModelError: it has no such form.
    """
    from training.vit import VisionTransformer, to_hugging_face  # noqa: PLC0415

    if isinstance(model, VisionTransformer):
        twin: nn.Module = to_hugging_face(model)
        return twin
    if not hasattr(model, "save_pretrained"):
        raise ModelError(f"{type(model).__name__} has no Hugging Face form: it is for comparison, not for serving.")
    return model


def write_package(
    model: nn.Module,
    folder: Path,
    *,
    name: str,
    spec: InputSpec,
    crop: CropSpec,
    probe: Tensor,
    calibration: Tensor | None,
    temperature: float = 1.0,
    notes: str = "",
    half: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Packaged:
    """Write the model folder; it appears whole or not at all.

    Args:
        model: a Hugging Face image classifier, temperature folded in already.
        probe: normalised crops [N, 3, H, W] on which the export is compared with torch.
        calibration: normalised crops for the int8 scales; without them no int8 export is made.
        temperature: for the record.
        half: store the weights in fp16 (the model takes the rounded values), else in fp32.

    Raises:
        ModelError: the export fails or differs, or the folder exists and holds something else than a model.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "mien.json").exists():
        raise ModelError(f"{str(folder)!r} holds other files; name a new folder for the model.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".package-") as scratch:
        fresh = Path(scratch) / "model"
        exported = Path(scratch) / "fp32.onnx"
        _write_weights(model, fresh, half=half)
        _write_json(fresh / "preprocessor_config.json", preprocessor_config(spec))
        say("exporting to ONNX")
        _plain(model)
        export_onnx(model, exported, height=spec.height, width=spec.width)
        store_shared(exported, fresh / "model.onnx", weights=_only_weights(fresh), half=half)
        difference = check_export(model, fresh / "model.onnx", probe)
        say(f"the export's probabilities agree with torch's within {difference:.1e}")
        onnx_files = {"fp32": "model.onnx"}
        if calibration is not None:
            say(f"quantising to int8 with {len(calibration)} crops")
            quantise(exported, fresh / "model.int8.onnx", calibration.numpy())
            onnx_files["int8"] = "model.int8.onnx"
        _write_json(
            fresh / "mien.json",
            mien_json(name, spec=spec, crop=crop, temperature=temperature, onnx_files=onnx_files, notes=notes),
        )
        load_model(fresh)  # whatever the worker would refuse is refused here
        _put_in_place(fresh, folder)
    sizes = {file.name: round(file.stat().st_size / 1e6, 2) for file in sorted(folder.iterdir())}
    return Packaged(load_model(folder), difference, sizes)


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Rename the new folder to ``folder``, readable by all; a README that was written there stays."""
    for file in fresh.iterdir():
        file.chmod(0o644)
    if folder.exists():
        readme = folder / "README.md"
        if readme.exists() and not (fresh / "README.md").exists():
            shutil.copy2(readme, fresh / "README.md")
        shutil.rmtree(folder)
    fresh.rename(folder)
    folder.chmod(0o755)


def package_run(
    run: Path,
    folder: Path,
    *,
    name: str,
    temperature: float = 1.0,
    margin: float | None = None,
    say: Callable[[str], None] = lambda _: None,
    cache: Path | None = None,
) -> Packaged:
    """Package the kept weights of a run, with int8 scales from its own training images.

    ``margin``: the crop margin in serving; without it the middle of those it was trained with.
    """
    from training.calibrate import fold_temperature  # noqa: PLC0415

    network, recipe, _ = network_of(run)
    model = packable(network)
    if temperature != 1.0:
        fold_temperature(model, temperature)
    spec, crop = specs_of(recipe)
    crop = crop if margin is None else CropSpec(margin, crop.grey)
    crops = training_crops(recipe, cache or run.parent / "cache", labels=tuple(checkpoint_labels(model)))
    return write_package(
        model,
        folder,
        name=name,
        spec=spec,
        crop=crop,
        probe=crops[:16],
        calibration=crops,
        temperature=temperature,
        say=say,
    )


def specs_of(recipe: Recipe) -> tuple[InputSpec, CropSpec]:
    """How serving must crop and normalise for a model trained by this recipe."""
    part = recipe.model
    margins = [sum(data.margin) / 2 for data in recipe.data if data.faces == "detect"]
    spec = InputSpec(part.image_size, part.image_size, "exact", None, "bicubic", 1 / 255, part.mean, part.std)
    return spec, CropSpec(round(margins[0], 3) if margins else 0.1, part.grey)


def training_crops(recipe: Recipe, cache: Path, *, labels: tuple[str, ...], count: int = CALIBRATION_CROPS) -> Tensor:
    """Normalised training crops [N, 3, H, W] as serving would make them, from every root by its share."""
    spec, _ = specs_of(recipe)
    total = sum(part.share for part in recipe.data)
    crops: list[Any] = []
    for part in recipe.data:
        items = require_training(scan(part.root, votes=part.votes), labels)
        wanted = max(8, round(count * part.share / total))
        positions = np.unique(np.linspace(0, len(items) - 1, wanted).astype(int))
        chosen = usable([items[i] for i in positions], labels)
        canvas = CanvasSpec(spec.height, sum(part.margin) / 2, part.faces == "detect", recipe.model.grey)
        found = load_canvases(chosen, canvas, cache)
        crops.extend(np.repeat(p, 3, axis=0) if len(p) == 1 else p for p in found.pixels)
    return torch.from_numpy(model_input([np.ascontiguousarray(c.transpose(1, 2, 0)) for c in crops], spec))


def checkpoint_labels(model: nn.Module) -> list[str]:
    """The labels in a Hugging Face model's config, in order."""
    table: dict[int, str] = model.config.id2label  # type: ignore[union-attr, assignment]
    return [table[i] for i in range(len(table))]


def mien_json(
    name: str, *, spec: InputSpec, crop: CropSpec, temperature: float, onnx_files: dict[str, str], notes: str
) -> dict[str, Any]:
    """The content of ``mien.json``."""
    return {
        "format": 1,
        "name": name,
        "input": {
            "height": spec.height,
            "width": spec.width,
            "resize": spec.resize,
            "shortest_edge": spec.shortest_edge,
            "resample": spec.resample,
            "rescale": spec.rescale,
            "mean": list(spec.mean),
            "std": list(spec.std),
        },
        "crop": {"margin": crop.margin, "grey": crop.grey},
        "temperature": round(temperature, 4),
        "onnx": onnx_files,
        "notes": notes,
    }


def preprocessor_config(spec: InputSpec) -> dict[str, Any]:
    """A Hugging Face image processor's configuration that prepares crops as the worker does (grey excepted)."""
    resample = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}[spec.resample]
    base = {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "resample": resample,
        "rescale_factor": spec.rescale,
        "size": {"height": spec.height, "width": spec.width},
    }
    if spec.resize == "shortest_edge":
        base["image_processor_type"] = "BitImageProcessor"
        base |= {"size": {"shortest_edge": spec.shortest_edge}, "do_center_crop": True}
        base["crop_size"] = {"height": spec.height, "width": spec.width}
    return base


def _write_weights(model: nn.Module, folder: Path, *, half: bool) -> None:
    """With ``half`` the model itself takes the rounded values, so that all that follows judges what is shipped."""
    quiet()
    if half:
        model.half()
    try:
        model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
    finally:
        model.float()


def _only_weights(folder: Path) -> Path | None:
    """The safetensors file, if there is one alone (large models are split into several)."""
    files = list(folder.glob("*.safetensors"))
    return files[0] if len(files) == 1 else None


def _plain(model: nn.Module) -> None:
    """Plain attention exports to fewer and faster operators than the fused kernel's decomposition."""
    setter = getattr(model, "set_attn_implementation", None)
    if setter is not None:
        setter("eager")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
