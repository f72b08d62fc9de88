"""A small real ViT checkpoint with fixed random weights as a model folder, for tests of torch and of device engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LABELS = ("calm", "glad", "cross")
SIZE = 32


def make_torch_model(folder: Path, *, name: str = "small-vit", seed: int = 0, **mien: Any) -> Path:
    """Write the folder (safetensors, no ONNX export) and give it back; ``mien`` replaces fields of mien.json."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=SIZE,
        patch_size=8,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        attn_implementation="sdpa",
    )
    network = ViTForImageClassification(config)
    with torch.no_grad():  # fresh weights answer alike to everything; these do not
        for parameter in network.parameters():
            parameter.mul_(6.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "ViTImageProcessor",
                "size": {"height": SIZE, "width": SIZE},
                "resample": 3,
                "rescale_factor": 1 / 255,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.25, 0.25, 0.25],
            }
        )
    )
    spec: dict[str, Any] = {
        "format": 1,
        "name": name,
        "input": {
            "height": SIZE, "width": SIZE, "resize": "exact", "shortest_edge": None, "resample": "bicubic",
            "rescale": 1 / 255, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
        },
        "crop": {"margin": 0.1, "grey": False},
    }  # fmt: skip
    (folder / "mien.json").write_text(json.dumps(spec | mien, indent=2))
    return folder
