"""Vision Transformers with random weights, packaged for Mien: as costly as trained ones, and nothing to download."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

LABELS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear")
SHAPES = {
    "vit-tiny-112": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "image_size": 112},
    "vit-base-224": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "image_size": 224},
}
SCALE_CROPS = 16


def random_model(name: str, keep: Path) -> Path:
    """The model folder ``keep/name``, made if it is not there: twelve layers, patches of 16, fp32 and int8 exports.

    A Hugging Face folder too, so that ``transformers.pipeline`` takes the same checkpoint.
    """
    target = keep / name
    if (target / "mien.json").exists():
        return target
    import numpy as np
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers import ViTImageProcessorPil as Processor

    from training.adopt import adopt
    from training.onnx_export import export_onnx
    from training.quantise import quantise

    torch.manual_seed(0)
    shape = SHAPES[name]
    size = shape["image_size"]
    config = ViTConfig(**shape, patch_size=16, id2label=dict(enumerate(LABELS)))
    source = keep / "checkpoints" / name
    network = ViTForImageClassification(config).eval()
    network.set_attn_implementation("eager")  # as in Mien's packages: fused attention exports guards against NaN
    network.save_pretrained(source)
    Processor(size={"height": size, "width": size}).save_pretrained(source)
    fresh = keep / f"making-{name}"
    adopt(str(source), fresh, name=name)
    pixels = np.random.default_rng(0).uniform(-1, 1, (SCALE_CROPS, 3, size, size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        export_onnx(network, Path(scratch) / "fp32.onnx", height=size, width=size)
        quantise(Path(scratch) / "fp32.onnx", fresh / "model.int8.onnx", pixels)
    facts = json.loads((fresh / "mien.json").read_text())
    facts["onnx"]["int8"] = "model.int8.onnx"
    (fresh / "mien.json").write_text(json.dumps(facts, indent=2) + "\n")
    fresh.rename(target)  # whole or not at all
    return target
