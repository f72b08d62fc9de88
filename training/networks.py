"""The network of a run: a pre-trained checkpoint (or some of its layers), a ViT from scratch, a small CNN."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mien.errors import ModelError
from training.quiet import quiet
from training.recipe import ModelPart, expand


def build_network(part: ModelPart, labels: tuple[str, ...]) -> nn.Module:
    """A classifier over ``labels`` for inputs of ``part.image_size``; see :func:`logits_of`.

    Raises:
        ModelError: the source cannot be loaded or does not fit.
    """
    if part.kind == "vit":
        from training.vit import vit_from_scratch  # noqa: PLC0415

        return vit_from_scratch(part, labels)
    if part.kind == "cnn":
        from training.cnn import SmallCnn  # noqa: PLC0415

        return SmallCnn(labels=len(labels), width=part.hidden)
    model = load_classifier(part.source, labels=labels, image_size=part.image_size)
    if part.layers:
        keep_layers(model, part.layers)
    if part.drop_path:
        set_drop_path(model, part.drop_path)
    return model


def logits_of(model: nn.Module, pixels: Tensor) -> Tensor:
    """Logits [N, L] of normalised pixels [N, 3, H, W], whatever kind of network it is."""
    output = model(pixels)
    logits = output if isinstance(output, Tensor) else output.logits
    assert isinstance(logits, Tensor)  # noqa: S101 - for the type checker
    return logits


def load_classifier(source: str, *, labels: tuple[str, ...] | None = None, image_size: int | None = None) -> nn.Module:
    """A Hugging Face image classifier from a folder or ``hub_id@commit``, in fp32.

    A backbone without a head gets a new one over ``labels``. A folder without ``config.json`` may hold the bare weights
    of a DINOv2 classifier (``dinov2.*``, ``head.*``). With ``image_size``, position embeddings are interpolated to it.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForImageClassification  # noqa: PLC0415 - slow to import

    quiet()
    folder, _, commit = expand(source, "source").partition("@")
    if Path(folder).is_dir() and not (Path(folder) / "config.json").exists():
        model = _bare_dinov2(Path(folder), labels)
    else:
        options: dict[str, Any] = {"revision": commit} if commit else {}
        try:
            config = AutoConfig.from_pretrained(folder, **options)
            if labels is not None and tuple(config.id2label.values()) != labels:
                config.id2label = dict(enumerate(labels))
                config.label2id = {label: i for i, label in enumerate(labels)}
            model = AutoModelForImageClassification.from_pretrained(
                folder,
                config=config,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                dtype=torch.float32,
                **options,
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"The model {source!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    if image_size is not None:
        resize_positions(model, image_size)
    return model


def _bare_dinov2(folder: Path, labels: tuple[str, ...] | None) -> nn.Module:
    from transformers import Dinov2Config, Dinov2ForImageClassification  # noqa: PLC0415

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"The folder {str(folder)!r} has neither config.json nor *.safetensors.")
    with safe_open(files[0], "pt") as stream:
        weights = {name: stream.get_tensor(name).float() for name in stream.keys()}  # noqa: SIM118
    if "head.weight" not in weights or "dinov2.embeddings.position_embeddings" not in weights:
        raise ModelError(
            f"The folder {str(folder)!r} has no config.json, and its weights are not a DINOv2 classifier's."
        )
    hidden = weights["dinov2.embeddings.cls_token"].shape[-1]
    patch = weights["dinov2.embeddings.patch_embeddings.projection.weight"].shape[-1]
    grid = int((weights["dinov2.embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    count = weights["head.weight"].shape[0]
    if labels is not None and len(labels) != count:
        raise ModelError(f"{str(folder)!r} has a head of {count} labels, the recipe names {len(labels)}.")
    names = labels or tuple(str(i) for i in range(count))
    config = Dinov2Config(
        hidden_size=hidden,
        num_hidden_layers=1 + max(int(m[1]) for n in weights if (m := re.search(r"layer\.(\d+)\.", n))),
        num_attention_heads=hidden // 64,
        image_size=grid * patch,
        patch_size=patch,
        use_mask_token=False,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    model = Dinov2ForImageClassification(config)
    weights["classifier.weight"], weights["classifier.bias"] = weights.pop("head.weight"), weights.pop("head.bias")
    model.load_state_dict(weights)
    return model


def resize_positions(model: nn.Module, image_size: int) -> None:
    """Interpolate learned position embeddings (bicubic) to a square input of ``image_size`` pixels, and record it.

    Raises:
        ModelError: the model's positions are of another kind and its size differs.
    """
    config: Any = model.config
    if getattr(config, "image_size", image_size) == image_size:
        return
    owner = next((module for module in model.modules() if hasattr(module, "position_embeddings")), None)
    table = getattr(owner, "position_embeddings", None)
    patch = int(getattr(config, "patch_size", 0) or 0)
    if not isinstance(table, nn.Parameter) or table.ndim != 3 or not patch or image_size % patch:
        raise ModelError(
            f"This {config.model_type} cannot be changed from {config.image_size} to {image_size} pixels "
            f"(patches of {patch or '?'}); set model.image_size = {config.image_size}."
        )
    old, new = int(config.image_size) // patch, image_size // patch
    extra = table.shape[1] - old * old
    grid = table[:, extra:].detach().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=new < old, align_corners=False)
    fresh = torch.cat([table[:, :extra].detach(), grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], dim=1)
    owner.position_embeddings = nn.Parameter(fresh)  # type: ignore[union-attr]
    config.image_size = image_size
    for module in model.modules():
        if "image_size" in vars(module):  # the architectures keep copies of it, as a number or as a pair
            pair = isinstance(vars(module)["image_size"], (tuple, list))
            vars(module)["image_size"] = (image_size, image_size) if pair else image_size
        if "num_patches" in vars(module):
            vars(module)["num_patches"] = new * new


def encoder_layers(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of encoder layers, with its owner and its attribute's name.

    Raises:
        ModelError: the model has no such list.
    """
    for module in model.modules():
        for name in ("layer", "layers", "blocks"):
            layers = getattr(module, name, None)
            if isinstance(layers, nn.ModuleList) and len(layers):
                return module, name, layers
    raise ModelError(f"{type(model).__name__} has no list of encoder layers.")


def keep_layers(model: nn.Module, chosen: tuple[int, ...]) -> None:
    """Make a shallower student of a model: keep the layers ``chosen``, in that order."""
    owner, name, layers = encoder_layers(model)
    if max(chosen) >= len(layers) or min(chosen) < 0:
        raise ModelError(f"model.layers names layer {max(chosen)}; the source has layers 0 to {len(layers) - 1}.")
    setattr(owner, name, nn.ModuleList(layers[i] for i in chosen))
    config: Any = model.config
    config.num_hidden_layers = len(chosen)
    for field in ("stage_names", "_out_features", "_out_indices"):
        if hasattr(config, field) and field == "stage_names":
            config.stage_names = ["stem", *(f"stage{i + 1}" for i in range(len(chosen)))]
            config.set_output_features_output_indices(out_features=None, out_indices=None)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382): leave a residual branch out for some of the images."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return branch
        keep = 1 - self.share
        mask = torch.rand(branch.shape[0], *(1,) * (branch.ndim - 1), device=branch.device, dtype=branch.dtype) < keep
        return branch * (mask.to(branch.dtype) / keep)


def set_drop_path(model: nn.Module, last: float) -> None:
    """Give the layers stochastic depth growing from 0 to ``last``, where the architecture has a place for it."""
    _, _, layers = encoder_layers(model)
    for position, layer in enumerate(layers):
        share = last * position / max(1, len(layers) - 1)
        for name, child in layer.named_children():
            if "drop_path" in name and isinstance(child, (nn.Identity, nn.Module)):
                setattr(layer, name, DropPath(share))


def compile_layers(model: nn.Module) -> None:
    """Compile each encoder layer in place (1.4 times faster training on a CPU with AMX)."""
    for layer in encoder_layers(model)[2]:
        layer.compile()
