"""Made the detector in this folder of the published YuNet file. Needs ``onnx``.

    python worker/yunet/patch.py PUBLISHED.onnx OURS.onnx

Three changes; no weight gets another value:

- The published graph is fixed to 1 x 3 x 640 x 640. Its twelve output reshapes (by three constants) to [1, -1, k]
  become [0, -1, k], where 0 keeps the batch, and the declared shapes become symbols.
- The five landmarks of each face, which nothing here reads, are no longer computed: 6% of the time.
- It takes pictures as decoded (N x height x width x 3, uint8, red first), not float planes with blue first: the
  first convolution's weights change places, and the graph itself transposes and converts, 7% faster than numpy did.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PIXELS = "pixels"


def free_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network for any batch and any height and width that are multiples of 32."""
    reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
    shapes = {node.input[1] for node in reshapes}
    if len(reshapes) != 12 or len(shapes) != 3:
        raise SystemExit("expected twelve reshapes by three constants: is this face_detection_yunet_2023mar.onnx?")
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            value = numpy_helper.to_array(tensor).copy()
            if value.shape != (3,) or value[0] not in (0, 1) or value[1] != -1:
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
    return model


def drop_landmarks(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network without the outputs ``kps_*`` and what only they need."""
    graph = model.graph
    kept = [output for output in graph.output if not output.name.startswith("kps")]
    needed = {output.name for output in kept}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for place, content in ((graph.output, kept), (graph.node, nodes[::-1]), (graph.initializer, weights)):
        del place[:]
        place.extend(content)
    return model


def take_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with the input ``pixels``: N x height x width x 3, uint8, red first."""
    graph = model.graph
    planes, first = graph.input[0].name, graph.node[0]
    kernel = next(tensor for tensor in graph.initializer if tensor.name == first.input[1])
    swapped = np.ascontiguousarray(numpy_helper.to_array(kernel)[:, ::-1])
    kernel.CopyFrom(numpy_helper.from_array(swapped, kernel.name))
    shape: list[str | int | None] = ["batch", "height", "width", 3]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, shape))
    nodes = [
        helper.make_node("Transpose", [PIXELS], ["pixel_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pixel_planes"], [planes], to=TensorProto.FLOAT),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    made = take_pixels(drop_landmarks(free_shapes(onnx.load(source))))
    onnx.checker.check_model(made)
    onnx.save(made, target)
