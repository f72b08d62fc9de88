"""From logits to probabilities, and what every classifier is checked for. Imports no runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mien.errors import ModelError
from mien.model_folder import Model

if TYPE_CHECKING:
    from mien.images import RGB  # not at run time: a device engine loads no decoder

Floats = npt.NDArray[np.float32]


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Row-wise softmax, computed in float64."""
    wide = np.asarray(logits, np.float64)
    wide = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares: Floats = (wide / wide.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def check_labels(model: Model, classify: Callable[[Sequence[RGB]], Floats]) -> None:
    """One batch of grey: it warms up, and shows whether the output fits the labels.

    Raises:
        ModelError: the network fails on an input of its own size, or has other outputs than its config has labels.
    """
    crops = [np.full((model.input.height, model.input.width, 3), 127, np.uint8)] * 2
    try:
        shape = classify(crops).shape
    except Exception as error:
        raise ModelError(f"The model {model.name!r} fails on an input of its own size: {one_line(error)}.") from None
    if shape != (2, len(model.labels)):
        raise ModelError(
            f"The model {model.name!r} gives {shape[-1]} outputs, but its config.json has {len(model.labels)} labels.",
            code="model_labels",
        )


def not_available(model: Model, device: str, precision: str) -> ModelError:
    """The error for a precision that a model's folder does not give on a device (``cpu``, ``cuda``, ``cuda:N``)."""
    offered = ", ".join(model.precisions.get(device.partition(":")[0], ())) or "nothing"
    return ModelError(
        f"The model {model.name!r} cannot run in {precision} on {device}; its folder offers {offered}.",
        code="precision_unavailable",
    )


def one_line(error: BaseException) -> str:
    """An exception's text on one line, of bounded length."""
    return " ".join(str(error).split())[:300] or type(error).__name__
