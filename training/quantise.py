"""The int8 export: weights per channel, activations with static scales measured on real crops.

Static, because with scales computed per batch an image's answer would depend on its neighbours.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx


def quantise(source: Path, target: Path, pixels: npt.NDArray[np.float32], *, reduce_range: bool = False) -> None:
    """Write a static int8 version (QDQ form) of an fp32 ONNX model.

    The inputs of matrix products with weights are quantised; what comes out of them stays in fp32, as do attention
    products, norms and activations: writing those as int8, to be read back at once, costs time and accuracy
    (docs/decisions.md).

    Args:
        pixels: normalised calibration crops [N, 3, H, W]; a few hundred, never those that judge.
        reduce_range: 7-bit weights, for CPUs without VNNI, whose 16-bit sums would saturate.
    """
    from onnxruntime.quantization import (  # noqa: PLC0415 - slow to import
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(np.array_split(pixels, max(1, len(pixels) // 16)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"pixel_values": batch}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            graph = onnx.load(str(prepared), load_external_data=False).graph
            quantize_static(
                str(prepared),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul", "Gemm"],
                nodes_to_exclude=_products_of_activations(graph),
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"ActivationSymmetric": False, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
            )
    finally:
        root.setLevel(level)


def _products_of_activations(graph: Any) -> list[str]:
    """Names of the matrix products without weights, such as those of attention."""
    weights = {initialiser.name for initialiser in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and not weights & set(node.input)]
