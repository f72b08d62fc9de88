"""Made the detector in this folder: frees batch, height and width of the published YuNet file. Needs ``onnx``.

    python worker/yunet/patch.py PUBLISHED.onnx FREED.onnx

The published graph is fixed to 1 x 3 x 640 x 640. Its twelve output reshapes (by three constants)
to [1, -1, k] become [0, -1, k], where 0 keeps the batch, and the declared shapes become symbols. No weight is touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from onnx import numpy_helper


def free_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network for any batch and any height and width that are multiples of 32."""
    reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
    shapes = {node.input[1] for node in reshapes}
    if len(reshapes) != 12 or len(shapes) != 3:
        raise SystemExit("expected twelve reshapes by three constants: is this face_detection_yunet_2023mar.onnx?")
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            value = numpy_helper.to_array(tensor).copy()
            if value.shape != (3,) or value[0] != 1 or value[1] != -1:
                raise SystemExit(f"unexpected constant {tensor.name}: {value}")
            value[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    names = ("batch", None, "height", "width")
    for dimension, name in zip(model.graph.input[0].type.tensor_type.shape.dim, names, strict=True):
        if name:
            dimension.dim_param = name
    for output in model.graph.output:
        batch, cells, _ = output.type.tensor_type.shape.dim
        batch.dim_param = "batch"
        cells.dim_param = f"cells_{output.name}"
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    onnx.save(free_shapes(onnx.load(source)), target)
