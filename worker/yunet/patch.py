"""Made the detector in this folder of the published YuNet file. Needs ``onnx``.

    python worker/yunet/patch.py PUBLISHED.onnx OURS.onnx

Four changes. No weight gets another value, and the answers are those of the published network to float rounding:

- The published graph is fixed to 1 x 3 x 640 x 640; batch, height and width become free.
- It takes pictures as decoded (N x height x width x 3, uint8, red first), not float planes with blue first. A row of
  interleaved pixels is read as one plane of three times the width, in which the first convolution (3 x 3, stride 2)
  becomes one of 3 x 9 with stride 2 x 6: the same products, and nothing has to be transposed.
- The three heads of each stride are one: eight channels (four of the box, class, object, two of zeros, as processors
  like them) instead of 4 + 1 + 1, each of which is computed as 16. The five landmarks of each face, which nothing here
  reads, are left out.
- The strides' maps are joined and the score is computed in the graph. Two outputs: ``squares`` (N x cells), class x
  object, and ``heads`` (N x cells x 8), of which the first four are the box; cells row by row, the stride of 8 first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

PIXELS = "pixels"
STRIDES = (8, 16, 32)
HEADS = ("bbox", "cls", "obj")
CHANNELS = 8


class Graph:
    """The nodes and weights of a network under change."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def weight(self, name: str) -> npt.NDArray[np.float32]:
        """A weight's values."""
        return numpy_helper.to_array(self._weights[name])

    def add_weight(self, name: str, values: npt.NDArray[np.generic]) -> str:
        """Note a new weight; gives its name."""
        self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def maker_of(self, output: str) -> onnx.NodeProto:
        """The node that computes a value."""
        found: onnx.NodeProto = next(node for node in self.model.graph.node if output in node.output)
        return found

    def close(self, before: list[onnx.NodeProto], after: list[onnx.NodeProto], outputs: list[str]) -> None:
        """Put nodes before and after the others and drop whatever the outputs do not need."""
        needed, kept = set(outputs), []
        for node in reversed([*before, *self.model.graph.node, *after]):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        graph = self.model.graph
        weights = [tensor for name, tensor in self._weights.items() if name in needed]
        for place, content in ((graph.node, kept[::-1]), (graph.initializer, weights), (graph.value_info, [])):
            del place[:]
            place.extend(content)


def take_pixels(graph: Graph) -> list[onnx.NodeProto]:
    """Make the first convolution read rows of interleaved pixels; gives the nodes that go before it."""
    first = graph.model.graph.node[0]
    planes, kernel = first.input[0], graph.weight(first.input[1])
    if first.op_type != "Conv" or kernel.shape != (16, 3, 3, 3):
        raise SystemExit("expected a convolution of 3 x 3 first: is this face_detection_yunet_2023mar.onnx?")
    red_first = kernel[:, ::-1].transpose(0, 2, 3, 1).reshape(16, 1, 3, 9)
    first.input[1] = graph.add_weight("rows_kernel", red_first)
    del first.attribute[:]
    first.attribute.extend(
        [helper.make_attribute("kernel_shape", [3, 9]), helper.make_attribute("strides", [2, 6]),
         helper.make_attribute("pads", [1, 3, 1, 3])]
    )  # fmt: skip
    rows = graph.add_weight("rows_shape", np.array([0, 0, -1]))
    return [
        helper.make_node("Reshape", [PIXELS, rows], ["rows"]),
        helper.make_node("Unsqueeze", ["rows"], ["plane"], axes=[1]),
        helper.make_node("Cast", ["plane"], [planes], to=TensorProto.FLOAT),
    ]


def join_heads(graph: Graph, level: int) -> tuple[str, list[onnx.NodeProto]]:
    """The three heads of a stride as one: N x cells x 8; the output's name and its nodes."""
    pairs = []
    for kind in HEADS:  # output <- Sigmoid <- Reshape <- Transpose <- depthwise 3 x 3 <- 1 x 1
        node = graph.maker_of(f"{kind}_{STRIDES[level]}")
        while node.op_type != "Conv":
            node = graph.maker_of(node.input[0])
        pairs.append((graph.maker_of(node.input[0]), node))
    sources = {pointwise.input[0] for pointwise, _ in pairs}
    if len(sources) != 1:
        raise SystemExit("the heads of a stride look at different maps")
    nodes, value = [], sources.pop()
    for step, (side, groups) in enumerate(((1, 1), (3, CHANNELS))):
        kernels, biases = (_padded([graph.weight(pair[step].input[part]) for pair in pairs]) for part in (1, 2))
        made = f"heads_{STRIDES[level]}_{step}"
        names = [graph.add_weight(f"{made}_kernel", kernels), graph.add_weight(f"{made}_bias", biases)]
        pads = [side // 2] * 4
        nodes.append(
            helper.make_node("Conv", [value, *names], [made], kernel_shape=[side] * 2, pads=pads, group=groups)
        )
        value = made
    rows = f"heads_{STRIDES[level]}"
    nodes.append(helper.make_node("Transpose", [value], [f"{rows}_last"], perm=[0, 2, 3, 1]))
    nodes.append(helper.make_node("Reshape", [f"{rows}_last", "cells_shape"], [rows]))
    return rows, nodes


def _padded(weights: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Weights of several heads one after the other, and zeros up to :data:`CHANNELS`."""
    joined = np.concatenate(weights)
    return np.concatenate([joined, np.zeros((CHANNELS - len(joined), *joined.shape[1:]), np.float32)])


def patch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The published network, changed as said above."""
    graph = Graph(model)
    before = take_pixels(graph)
    graph.add_weight("cells_shape", np.array([0, -1, CHANNELS]))
    joined = [join_heads(graph, level) for level in range(len(STRIDES))]
    after = [node for _, nodes in joined for node in nodes]
    first, end, axis = (graph.add_weight(name, np.array([at])) for name, at in (("first", 4), ("end", 6), ("axis", 2)))
    after += [
        helper.make_node("Concat", [name for name, _ in joined], ["heads"], axis=1),
        helper.make_node("Slice", ["heads", first, end, axis], ["scores"]),
        helper.make_node("Sigmoid", ["scores"], ["shares"]),
        helper.make_node("ReduceProd", ["shares"], ["squares"], axes=[2], keepdims=0),
    ]
    graph.close(before, after, ["squares", "heads"])
    for place in (model.graph.input, model.graph.output):
        del place[:]
    model.graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["batch", "height", "width", 3]))
    outputs: dict[str, list[str | int | None]] = {"squares": ["batch", "cells"], "heads": ["batch", "cells", CHANNELS]}
    for name, shape in outputs.items():
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return model


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    made = patch(onnx.load(source))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, target)
