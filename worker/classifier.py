"""A model folder becomes probabilities for a batch of crops: an ONNX session on the CPU, torch on CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mien.errors import ModelError
from mien.images import RGB
from mien.model_folder import Model
from worker.faces import Floats, model_input
from worker.onnx_sessions import open_session

BATCH = 8
"""Crops that go through the network at once; on the CPU 8 beat 1 and 32."""


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
            raise _not_available(model, "cpu", precision)
        self.model = model
        self.precision = precision
        try:
            self._session = open_session(path)
            inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # onnxruntime raises kinds of its own, which share no public base
            raise ModelError(f"{path.name} of the model {model.name!r} cannot be opened: {_line(error)}.") from None
        if [i.name for i in inputs] != ["pixel_values"] or "logits" not in [o.name for o in outputs]:
            raise ModelError(
                f"{path.name} of the model {model.name!r} must take 'pixel_values' and give 'logits', "
                f"not {[i.name for i in inputs]} and {[o.name for o in outputs]}."
            )
        _check_labels(self)

    def classify(self, crops: Sequence[RGB]) -> Floats:
        """See :class:`Classifier`."""
        if not crops:
            return np.zeros((0, len(self.model.labels)), np.float32)
        (logits,) = self._session.run(["logits"], {"pixel_values": model_input(crops, self.model.input)})
        return softmax(logits)


class TorchClassifier:
    """The model's safetensors in torch, on CUDA or the CPU. Weights and activations in the given precision."""

    def __init__(self, model: Model, device: str, precision: str = "fp32") -> None:
        if not model.has_weights:
            raise _not_available(model, device, precision)
        try:
            import torch  # noqa: PLC0415 - heavy, and absent from the light installation
            from transformers import AutoModelForImageClassification  # noqa: PLC0415
            from transformers.utils import logging as transformers_logging  # noqa: PLC0415
        except ImportError as error:
            raise ModelError(
                f"Running {model.name!r} on {device} needs torch and transformers ({error.name} is missing): "
                "install mien[cuda]."
            ) from None
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        if precision not in kinds:
            raise _not_available(model, device, precision)
        self.model = model
        self.precision = precision
        self._torch: Any = torch
        self._device = device
        self._kind = kinds[precision]
        torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32
        torch.backends.cudnn.allow_tf32 = False
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            network = AutoModelForImageClassification.from_pretrained(
                model.folder, local_files_only=True, dtype=self._kind
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"The model {model.name!r} cannot be loaded by transformers: {_line(error)}.") from None
        self._network = network.to(device).eval()
        _check_labels(self)

    def classify(self, crops: Sequence[RGB]) -> Floats:
        """See :class:`Classifier`."""
        if not crops:
            return np.zeros((0, len(self.model.labels)), np.float32)
        torch = self._torch
        batch = torch.from_numpy(model_input(crops, self.model.input)).to(self._device, self._kind)
        with torch.inference_mode():
            logits = self._network(pixel_values=batch).logits
        return softmax(logits.float().cpu().numpy())


def open_classifier(model: Model, device: str, precision: str) -> Classifier:
    """The classifier for a device (``cpu``, ``cuda``, ``cuda:N``): the ONNX export where there is one, else torch.

    Raises:
        ModelError: the folder cannot give this precision on this device, or its files do not fit together.
    """
    if device == "cpu" and model.onnx_file(precision) is not None:
        return OnnxClassifier(model, precision)
    if device == "cpu" and precision == "int8":
        raise _not_available(model, device, precision)
    return TorchClassifier(model, device, precision)


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Row-wise softmax, computed in float64."""
    wide = np.asarray(logits, np.float64)
    wide = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares: Floats = (wide / wide.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _check_labels(classifier: Classifier) -> None:
    """One batch of grey: it warms up, and shows whether the output fits the labels."""
    spec = classifier.model.input
    crops = [np.full((spec.height, spec.width, 3), 127, np.uint8)] * 2
    try:
        shape = classifier.classify(crops).shape
    except Exception as error:
        name = classifier.model.name
        raise ModelError(f"The model {name!r} fails on an input of its own size: {_line(error)}.") from None
    if shape != (2, len(classifier.model.labels)):
        raise ModelError(
            f"The model {classifier.model.name!r} gives {shape[-1]} outputs, but its config.json has "
            f"{len(classifier.model.labels)} labels.",
            code="model_labels",
        )


def _not_available(model: Model, device: str, precision: str) -> ModelError:
    offered = ", ".join(model.precisions.get(device.partition(":")[0], ())) or "nothing"
    return ModelError(
        f"The model {model.name!r} cannot run in {precision} on {device}; its folder offers {offered}.",
        code="precision_unavailable",
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
