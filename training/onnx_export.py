"""ONNX exports: torch's exporter, weights as half precision behind a Cast, checked against torch."""

from __future__ import annotations

import json
import logging
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mien.errors import ModelError
from training.networks import logits_of

TOLERANCE = 1e-4
"""Largest difference in a probability between torch and the export."""
_SMALL = 256
"""Initialisers with fewer numbers than this stay in fp32."""


class _LogitsOnly(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return logits_of(self.model, pixel_values)


def export_onnx(model: nn.Module, path: Path, *, height: int, width: int) -> None:
    """Write ``path``: input ``pixel_values`` float32 [N, 3, height, width], output ``logits`` float32 [N, L], any N.

    Raises:
        ModelError: ``export_failed``; torch's exporter cannot express this model.
    """
    example = (torch.zeros(2, 3, height, width),)
    batch = torch.export.Dim("batch", min=1, max=4096)
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _LogitsOnly(model).eval(),
                example,
                str(path),
                input_names=["pixel_values"],
                output_names=["logits"],
                dynamic_shapes={"pixel_values": {0: batch}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"The export to ONNX failed: {reason}", code="export_failed") from None
    finally:
        noisy.setLevel(level)
    model = onnx.load(str(path))
    _strip(model)
    path.write_bytes(model.SerializeToString())


def _strip(model: Any) -> None:
    """Leave out what the exporter notes about its own run (stack traces with paths of this machine)."""
    parts = [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.functions]
    for part in [*parts, *model.graph.input, *model.graph.output]:
        del part.metadata_props[:]
        part.doc_string = ""


def store_shared(source: Path, target: Path, *, weights: Path | None = None, half: bool = True) -> None:
    """Rewrite an fp32 export so that its weights take little room.

    With ``half`` they are stored in fp16, each behind a Cast that ONNX Runtime folds when it loads. With ``weights``, a
    safetensors file in the same folder as ``target``, tensors that are there (or transposed) are not stored
    again: the export refers to them by offset, as ONNX external data.
    """
    model = onnx.load(str(source))
    shared = _SafetensorsIndex(weights, half=half) if weights else None
    kept: list[Any] = []
    nodes: list[Any] = []
    for initialiser in model.graph.initializer:
        values = numpy_helper.to_array(initialiser)
        if values.dtype != np.float32 or values.size < _SMALL:
            kept.append(initialiser)
            continue
        found = shared.find(values) if shared else None
        if found is None and not half:
            kept.append(initialiser)
            continue
        # the steps from what is stored to what the graph reads, each named after the next
        steps: list[tuple[str, dict[str, Any]]] = [("Cast", {"to": TensorProto.FLOAT})] if half else []
        if found is not None and found.transposed:
            steps.insert(0, ("Transpose", {"perm": [1, 0]}))
        names = [f"{initialiser.name}.stored{i or ''}" for i in range(len(steps))] + [initialiser.name]
        if found is None:
            kept.append(numpy_helper.from_array(values.astype(np.float16), names[0]))
        else:
            kept.append(found.as_initialiser(names[0], weights))
        for (kind, attributes), before, after in zip(steps, names[:-1], names[1:], strict=True):
            nodes.append(helper.make_node(kind, [before], [after], **attributes))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    original = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *original])
    del model.graph.value_info[:]
    target.write_bytes(model.SerializeToString())


class _Found:
    def __init__(self, shape: list[int], place: tuple[int, int], *, kind: int, transposed: bool) -> None:
        self.shape, self.kind, self.transposed = shape, kind, transposed
        self.offset, self.length = place

    def as_initialiser(self, name: str, weights: Path | None) -> Any:
        assert weights is not None  # noqa: S101 - for the type checker
        tensor = TensorProto(name=name, data_type=self.kind, dims=self.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", self.offset), ("length", self.length)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class _SafetensorsIndex:
    """Finds tensors of a safetensors file by value (format: 8 bytes of header length, a JSON header, the data)."""

    def __init__(self, path: Path, *, half: bool) -> None:
        self._kind = np.float16 if half else np.float32
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        self._by_content: dict[tuple[tuple[int, ...], bytes], _Found] = {}
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] != ("F16" if half else "F32"):
                continue
            first, last = entry["data_offsets"]
            start = 8 + length + first
            count = (last - first) // np.dtype(self._kind).itemsize
            values = np.frombuffer(raw, self._kind, offset=start, count=count).reshape(entry["shape"])
            kind, place = TensorProto.FLOAT16 if half else TensorProto.FLOAT, (start, last - first)
            found = _Found(entry["shape"], place, kind=kind, transposed=False)
            self._by_content[values.shape, values.tobytes()] = found
            if values.ndim == 2 and min(values.shape) > 1:
                turned = _Found(entry["shape"], place, kind=kind, transposed=True)
                self._by_content.setdefault((values.T.shape, np.ascontiguousarray(values.T).tobytes()), turned)

    def find(self, values: npt.NDArray[Any]) -> _Found | None:
        stored = values.astype(self._kind)
        return self._by_content.get((stored.shape, stored.tobytes())) if np.array_equal(stored, values) else None


def largest_difference(model: nn.Module, path: Path, pixels: Tensor) -> float:
    """Largest difference in a probability between torch (fp32) and the export run by ONNX Runtime.

    Args:
        pixels: normalised [N, 3, H, W]; run alone and as one batch.
    """
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = logits_of(model.eval(), pixels).softmax(dim=-1).numpy()
    together = _softmax(session.run(["logits"], {"pixel_values": pixels.numpy()})[0])
    alone = np.concatenate([_softmax(session.run(["logits"], {"pixel_values": p[None].numpy()})[0]) for p in pixels])
    return float(max(np.abs(together - expected).max(), np.abs(alone - expected).max()))


def check_export(model: nn.Module, path: Path, pixels: Tensor) -> float:
    """As :func:`largest_difference`.

    Raises:
        ModelError: ``export_differs``; it is more than TOLERANCE.
    """
    difference = largest_difference(model, path, pixels)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"The ONNX export's probabilities differ from torch's by up to {difference:.2g} (limit: {TOLERANCE:.0e}).",
            code="export_differs",
        )
    return difference


def _softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    wide = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))
