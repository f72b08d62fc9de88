"""A model folder becomes probabilities for a batch of crops: an ONNX session on the CPU, torch on CUDA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from mien.errors import ModelError
from mien.images import RGB
from mien.model_folder import InputSpec, Model
from worker.crops import model_input
from worker.onnx_sessions import open_session
from worker.probabilities import Floats, check_labels, not_available, one_line, softmax
from worker.torch_classifier import TorchClassifier

BATCH = 8
"""Crops that go through a network at once, at most; on the CPU 8 beat 1 and 32."""
PASS_PIXELS = 2 * 224 * 224
"""Pixels that go through a network at once on the CPU: with more, what passes between layers outgrows the core's cache
(two inputs of 224 x 224 take 8 to 19% less time each than eight; docs/decisions.md)."""


def crops_at_once(spec: InputSpec, most: int = BATCH) -> int:
    """How many crops of this size go through a network at once on the CPU, from 1 to ``most``."""
    return min(most, max(1, PASS_PIXELS // (spec.height * spec.width)))


def passes(crops: Sequence[RGB], spec: InputSpec, most: int = BATCH) -> Iterator[Sequence[RGB]]:
    """Crops in the parts that go through a network on the CPU, one after the other."""
    at_once = crops_at_once(spec, most)
    return (crops[first : first + at_once] for first in range(0, len(crops), at_once))


class Classifier(Protocol):
    """What an engine needs of a classifier."""

    model: Model
    precision: str

    def classify(self, crops: Sequence[RGB]) -> Floats:
        """Probabilities (N x labels, float32, rows sum to 1) of crops made for ``model.input``."""
        ...


class OnnxClassifier:
    """The model's ONNX export on one CPU thread."""

    def __init__(self, model: Model, precision: str = "fp32") -> None:
        path = model.onnx_file(precision)
        if path is None:
            raise not_available(model, "cpu", precision)
        self.model = model
        self.precision = precision
        try:
            self._session = open_session(path)
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # onnxruntime raises kinds of its own, which share no public base
            raise ModelError(f"{path.name} of the model {model.name!r} cannot be opened: {one_line(error)}.") from None
        if [i.name for i in inputs] != ["pixel_values"] or "logits" not in [o.name for o in outputs]:
            raise ModelError(
                f"{path.name} of the model {model.name!r} must take 'pixel_values' and give 'logits', "
                f"not {[i.name for i in inputs]} and {[o.name for o in outputs]}."
            )
        check_labels(model, self.classify)

    def classify(self, crops: Sequence[RGB]) -> Floats:
        """See :class:`Classifier`."""
        if not crops:
            return np.zeros((0, len(self.model.labels)), np.float32)
        (logits,) = self._session.run(["logits"], {"pixel_values": model_input(crops, self.model.input)})
        return softmax(logits)


def open_classifier(model: Model, device: str, precision: str) -> Classifier:
    """The classifier for a device (``cpu``, ``cuda``, ``cuda:N``): the ONNX export where there is one, else torch.

    Raises:
        ModelError: the folder cannot give this precision on this device, or its files do not fit together.
    """
    if device == "cpu" and model.onnx_file(precision) is not None:
        return OnnxClassifier(model, precision)
    if device == "cpu" and precision == "int8":
        raise not_available(model, device, precision)
    return TorchClassifier(model, device, precision)
