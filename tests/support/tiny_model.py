"""A tiny but valid model folder, for tests only: its weights are set by hand, so that every answer can be checked.

Labels: ``dark``, ``grey``, ``bright``, by the mean of the crop in 0..1 with centres 1/6, 1/2 and 5/6:
logit_k = SHARPNESS * (2 * centre_k * mean - centre_k ** 2), the nearest centre's softmax.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

LABELS = ("dark", "grey", "bright")
CENTRES = np.array([1 / 6, 1 / 2, 5 / 6])
SHARPNESS = 30.0
SIZE = 32


def expected(mean: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The probabilities for a crop whose pixels have this mean (0 to 1)."""
    logits = SHARPNESS * (2 * CENTRES * mean - CENTRES**2)
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def make_tiny_model(folder: Path, *, grey: bool = False, name: str = "tiny", size: int = SIZE, **mien: Any) -> Path:
    """Write the folder and give it back; ``mien`` replaces fields of mien.json."""
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        "axes": np.array([1, 2, 3], np.int64),
        "weight": (SHARPNESS * 2 * CENTRES[None, :]).astype(np.float32),
        "bias": (-SHARPNESS * CENTRES**2).astype(np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["pixel_values", "axes"], ["mean4"], keepdims=1),
        helper.make_node("Flatten", ["mean4"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / "config.json").write_text(json.dumps({"id2label": {str(i): label for i, label in enumerate(LABELS)}}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": size, "width": size}}))
    spec: dict[str, Any] = {
        "format": 1,
        "name": name,
        "input": {
            "height": size,
            "width": size,
            "resize": "exact",
            "shortest_edge": None,
            "resample": "bilinear",
            "rescale": 1 / 255,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        },
        "crop": {"margin": 0.1, "grey": grey},
        "onnx": {"fp32": "model.onnx"},
    }
    (folder / "mien.json").write_text(json.dumps(spec | mien, indent=2))
    return folder
