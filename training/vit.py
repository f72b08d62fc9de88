"""The Vision Transformer from scratch, in one file (Dosovitskiy et al. 2021, arXiv:2010.11929).

An image is cut into patches; each becomes a vector; a class token is put before them and learned positions are
added; a stack of layers lets every token look at every other (attention) and then thinks about each alone (MLP); the
class token's last state gives the logits. The weights map one to one onto transformers' ``ViTForImageClassification``
(:func:`to_hugging_face`), so that the worker loads unchanged what is trained here.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from mien.errors import ModelError
from training.networks import DropPath
from training.recipe import ModelPart

EPSILON = 1e-12
"""Of the layer norms, as in the published checkpoints."""


class PatchEmbedding(nn.Module):
    """Pixels [N, 3, S, S] -> tokens [N, 1 + (S / P)^2, D]: patches through one linear map, class token, positions."""

    def __init__(self, image_size: int, patch_size: int, hidden: int) -> None:
        super().__init__()
        patches = (image_size // patch_size) ** 2
        self.project = nn.Conv2d(3, hidden, kernel_size=patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, hidden))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + patches, hidden))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.project(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(pixels), -1, -1), patches], dim=1)
        result: Tensor = tokens + self.position_embeddings
        return result


class Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(d)) V, heads side by side, one output map."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.output = nn.Linear(hidden, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, hidden = tokens.shape

        def split(x: Tensor) -> Tensor:
            parts: Tensor = x.view(count, length, self.heads, hidden // self.heads).transpose(1, 2)
            return parts

        q, k, v = split(self.query(tokens)), split(self.key(tokens)), split(self.value(tokens))
        weights = (q @ k.transpose(-2, -1) / math.sqrt(hidden // self.heads)).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(count, length, hidden)
        result: Tensor = self.output(mixed)
        return result


class Layer(nn.Module):
    """Norm, attention, residual; norm, MLP, residual. ``drop`` is its stochastic depth."""

    def __init__(self, hidden: int, heads: int, *, drop: float, dropout: float) -> None:
        super().__init__()
        self.norm_before = nn.LayerNorm(hidden, eps=EPSILON)
        self.attention = Attention(hidden, heads)
        self.norm_after = nn.LayerNorm(hidden, eps=EPSILON)
        self.widen, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(drop)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.dropout(self.attention(self.norm_before(tokens))))
        wide = nn.functional.gelu(self.widen(self.norm_after(tokens)))
        result: Tensor = tokens + self.drop_path(self.dropout(self.narrow(wide)))
        return result


class VisionTransformer(nn.Module):
    """Pixels [N, 3, S, S], normalised -> logits [N, L]."""

    def __init__(
        self,
        *,
        labels: tuple[str, ...],
        image_size: int,
        patch_size: int,
        hidden: int,
        depth: int,
        heads: int,
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ModelError(f"model.image_size {image_size} is not a multiple of model.patch_size {patch_size}.")
        if hidden % heads:
            raise ModelError(f"model.hidden {hidden} is not a multiple of model.heads {heads}.")
        self.labels, self.image_size, self.patch_size, self.heads = labels, image_size, patch_size, heads
        self.embeddings = PatchEmbedding(image_size, patch_size, hidden)
        self.layers = nn.ModuleList(
            Layer(hidden, heads, drop=drop_path * i / max(1, depth - 1), dropout=dropout) for i in range(depth)
        )
        self.norm = nn.LayerNorm(hidden, eps=EPSILON)
        self.classifier = nn.Linear(hidden, len(labels))
        self.apply(_initialise)
        nn.init.trunc_normal_(self.embeddings.class_token, std=0.02)
        self.embeddings.position_embeddings.data[0, 1:] = _waves(image_size // patch_size, hidden)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.embeddings(pixels)
        for layer in self.layers:
            tokens = layer(tokens)
        logits: Tensor = self.classifier(self.norm(tokens)[:, 0])
        return logits


def vit_from_scratch(part: ModelPart, labels: tuple[str, ...]) -> VisionTransformer:
    """The network of a recipe's [model] with kind = "vit"."""
    return VisionTransformer(
        labels=labels,
        image_size=part.image_size,
        patch_size=part.patch_size,
        hidden=part.hidden,
        depth=part.depth,
        heads=part.heads,
        drop_path=part.drop_path,
        dropout=part.dropout,
    )


# Ours -> theirs. Every weight has exactly one counterpart of the same shape.
_NAMES = (
    (r"^embeddings\.class_token$", "vit.embeddings.cls_token"),
    (r"^embeddings\.position_embeddings$", "vit.embeddings.position_embeddings"),
    (r"^embeddings\.project\.", "vit.embeddings.patch_embeddings.projection."),
    (r"^layers\.(\d+)\.attention\.(q|k|v)(?:uery|ey|alue)\.", r"vit.layers.\1.attention.\2_proj."),
    (r"^layers\.(\d+)\.attention\.output\.", r"vit.layers.\1.attention.o_proj."),
    (r"^layers\.(\d+)\.norm_(before|after)\.", r"vit.layers.\1.layernorm_\2."),
    (r"^layers\.(\d+)\.widen\.", r"vit.layers.\1.mlp.fc1."),
    (r"^layers\.(\d+)\.narrow\.", r"vit.layers.\1.mlp.fc2."),
    (r"^norm\.", "vit.layernorm."),
    (r"^classifier\.", "classifier."),
)


def hugging_face_name(name: str) -> str:
    """The name of one of our weights in transformers' model."""
    for pattern, replacement in _NAMES:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    raise ModelError(f"The weight {name} has no counterpart in ViTForImageClassification.")


def to_hugging_face(model: VisionTransformer) -> Any:
    """The same model as transformers' ``ViTForImageClassification``."""
    from transformers import ViTConfig, ViTForImageClassification  # noqa: PLC0415 - slow to import

    hidden = model.norm.normalized_shape[0]
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=len(model.layers),
        num_attention_heads=model.heads,
        intermediate_size=4 * hidden,
        layer_norm_eps=EPSILON,
        image_size=model.image_size,
        patch_size=model.patch_size,
        id2label=dict(enumerate(model.labels)),
        label2id={label: i for i, label in enumerate(model.labels)},
    )
    twin = ViTForImageClassification(config)
    twin.load_state_dict({hugging_face_name(name): tensor for name, tensor in model.state_dict().items()})
    twin.eval()  # type: ignore[no-untyped-call]
    return twin


def _initialise(module: nn.Module) -> None:
    """As the authors' code does: Glorot for the linear maps, LeCun for the patches. At small widths the usual standard
    deviation of 0.02 leaves attention flat, and training stays at the majority for hundreds of steps."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=math.prod(module.weight.shape[1:]) ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _waves(side: int, hidden: int) -> Tensor:
    """Where the positions start: sines and cosines over rows and columns, [side^2, hidden] (Beyer et al. 2022,
    arXiv:2205.01580: small ViTs learn faster from these than from noise)."""
    quarter = hidden // 4
    speed = 1.0 / 100.0 ** (torch.arange(quarter) / max(1, quarter - 1))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    phases = [place.reshape(-1, 1) * speed for place in (rows, columns)]
    waves = torch.cat([wave(phase) for phase in phases for wave in (torch.sin, torch.cos)], dim=1)
    return nn.functional.pad(waves * 0.5, (0, hidden - 4 * quarter))
