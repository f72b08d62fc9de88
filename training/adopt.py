"""Adding a stranger's checkpoint: an image classifier from a folder or the hub becomes a model folder, or not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mien.errors import ModelError
from mien.int8 import Int8Cost, write_record
from mien.model_folder import CropSpec, InputSpec, load_model
from training.card import adopted_card
from training.package import Packaged, write_package
from training.predictions import predict, read_for_judging
from training.processor import input_spec_of
from training.quiet import quiet
from worker.crops import model_input

DEFAULT_MARGIN = 0.1
SCALE_IMAGES = 256
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]


def adopt(
    source: str,
    target: Path,
    *,
    name: str | None = None,
    margin: float | None = None,
    grey: bool = False,
    calibrate: Path | None = None,
    faces: str = "detect",
    say: Callable[[str], None] = lambda _: None,
) -> Packaged:
    """Package the checkpoint ``source`` (a folder, or ``owner/name@commit`` on the hub) into the folder ``target``.

    Args:
        margin: crop margin; without it 0.1 is assumed and named in the notes.
        calibrate: folder of labelled images; then an int8 export is made from one half and judged on the other.
        faces: how the images of ``calibrate`` are cropped.

    Raises:
        ModelError: it is refused; the sentence says why.
    """
    folder, origin = fetch(source)
    config = check_config(folder, origin)
    spec, assumed = input_spec_of(folder, config)
    if margin is None:
        assumed.append(f"crop margin {DEFAULT_MARGIN} in {'grey' if grey else 'colour'}")
    network = load_strict(folder, origin)
    crop = CropSpec(DEFAULT_MARGIN if margin is None else margin, grey)
    notes = f"Assumed, as the checkpoint does not say: {'; '.join(assumed)}." if assumed else ""
    probe = torch.from_numpy(model_input(_probes(spec, grey), spec))
    chosen = (
        name
        or re.sub(r"[^a-z0-9._-]+", "-", origin.partition("@")[0].rsplit("/", 1)[-1].lower()).strip("-.")
        or "model"
    )
    made = write_package(
        network,
        target,
        name=chosen,
        spec=spec,
        crop=crop,
        probe=probe,
        calibration=None,
        notes=notes,
        half=False,
        say=say,
    )
    cost = None
    if calibrate is not None:
        made, cost = _with_int8(network, made, calibrate, faces=faces, probe=probe, say=say)
    (target / "README.md").write_text(adopted_card(made, origin=origin, config=config, cost=cost), encoding="utf-8")
    return made


def fetch(source: str) -> tuple[Path, str]:
    """The folder of a checkpoint, and its name for people. From the hub only JSON files and safetensors are taken.

    Raises:
        ModelError: no such folder; a hub id without a commit; the hub does not give it.
    """
    if Path(source).is_dir():
        return Path(source), Path(source).resolve().name
    repository, _, commit = source.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or source.startswith((".", "/")):
        raise ModelError(
            f"There is no folder {source!r}, and it is no hub id (owner/name@commit).", code="model_missing"
        )
    if not _COMMIT.fullmatch(commit):
        raise ModelError(
            f"Name the commit of {repository!r} as {repository}@<40 hex digits>: a branch can change under you.",
            code="model_commit",
        )
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        return Path(snapshot_download(repository, revision=commit, allow_patterns=_WANTED)), source
    except Exception as error:  # the hub's client raises its own and httpx's kinds
        raise ModelError(f"{source!r} cannot be fetched: {_line(error)}.", code="model_missing") from None


def check_config(folder: Path, origin: str) -> dict[str, Any]:
    """The checkpoint's ``config.json``, after every check that needs no weights.

    Raises:
        ModelError: no image classifier, remote code, pickled weights, no labels, a multi-label or regression head.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        raise ModelError(
            f"{origin!r} has no config.json: it is no Hugging Face model.", code="model_incomplete"
        ) from None
    except ValueError:
        raise ModelError(f"{origin!r}: config.json is not valid JSON.", code="model_config") from None
    if config.get("auto_map"):
        raise ModelError(
            f"{origin!r} needs code of its own (auto_map in config.json); Mien runs none.", code="model_code"
        )
    architectures = config.get("architectures") or []
    if not any(str(kind).endswith("ForImageClassification") for kind in architectures):
        raise ModelError(
            f"{origin!r} is no image classifier: "
            f"config.json names {', '.join(map(str, architectures)) or 'no architecture'}.",
            code="model_kind",
        )
    if not list(folder.glob("*.safetensors")):
        pickled = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        reason = f"its weights are pickled ({pickled[0]}), which can run code" if pickled else "it has no weights"
        raise ModelError(f"{origin!r} has no *.safetensors: {reason}.", code="model_weights")
    problem = config.get("problem_type")
    if problem in ("multi_label_classification", "regression"):
        kind = "multi-label" if problem.startswith("multi") else "regression"
        raise ModelError(f"{origin!r} has a {kind} head; Mien needs one label per face.", code="model_head")
    labels = config.get("id2label") or {}
    if len(labels) == 1:
        raise ModelError(
            f"{origin!r} has a single output (a regression head); Mien needs two labels or more.", code="model_head"
        )
    if not labels or all(re.fullmatch(r"LABEL_\d+", str(label)) for label in labels.values()):
        raise ModelError(
            f"{origin!r} has no labels: id2label in config.json is missing or made of placeholders.",
            code="model_labels",
        )
    return dict(config)


def load_strict(folder: Path, origin: str) -> nn.Module:
    """The classifier in fp32, every weight from the file.

    Raises:
        ModelError: transformers cannot load it, or weights are missing (an untrained head).
    """
    from transformers import AutoModelForImageClassification  # noqa: PLC0415 - slow to import

    quiet()
    try:
        model, info = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # transformers raises many kinds on configurations it does not know
        raise ModelError(f"{origin!r} cannot be loaded by transformers: {_line(error)}.", code="model_load") from None
    missing = sorted(map(str, info.get("missing_keys") or [])) + sorted(map(str, info.get("mismatched_keys") or []))
    if missing:
        raise ModelError(
            f"{origin!r} lacks trained weights for {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else "")
            + "; the model would answer at random.", code="model_incomplete",
        )  # fmt: skip
    network: nn.Module = model.eval()
    return network


def _with_int8(
    network: nn.Module, made: Packaged, folder: Path, *, faces: str, probe: torch.Tensor, say: Callable[[str], None]
) -> tuple[Packaged, Int8Cost]:
    _, items = read_for_judging(folder)
    order = np.random.default_rng(0).permutation(len(items))
    half = len(items) // 2
    say(f"cropping {len(items)} images of {folder.name}")
    scales = predict(made.model, [items[i] for i in order[:half][:SCALE_IMAGES]], detect=faces == "detect")
    calibration = torch.from_numpy(model_input(scales.crops, made.model.input))
    model = made.model
    made = write_package(
        network, model.folder, name=model.name, spec=model.input, crop=model.crop, probe=probe, calibration=calibration,
        notes=model.notes, half=False, say=say,
    )  # fmt: skip
    judged = [items[i] for i in order[half:]]
    full = predict(load_model(model.folder), judged, detect=faces == "detect")
    small = predict(load_model(model.folder), judged, detect=faces == "detect", precision="int8")
    cost = Int8Cost(
        images=len(full.items),
        accuracy_fp32=float((full.probabilities.argmax(axis=1) == full.truth).mean()),
        accuracy_int8=float((small.probabilities.argmax(axis=1) == small.truth).mean()),
        judged=folder.name,
    )
    write_record(made.model.folder, [cost])
    change = float(np.abs(full.probabilities - small.probabilities).max())
    say(f"int8 moves probabilities by up to {change:.3f}")
    say(f"int8: accuracy {cost.accuracy_int8:.4f}, fp32: {cost.accuracy_fp32:.4f}, on {cost.images} images")
    return made, cost


def _probes(spec: InputSpec, grey: bool) -> list[Any]:
    """A few smooth pictures of the input's size, on which the export is compared with torch."""
    random = np.random.default_rng(0)
    coarse = random.random((4, 6, 6, 1 if grey else 3))
    rows, columns = (np.arange(side) * 6 // side for side in (spec.height, spec.width))
    fine = (coarse[:, rows][:, :, columns] * 255).astype(np.uint8)
    return [np.repeat(picture, 3, axis=2) if grey else picture for picture in fine]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
