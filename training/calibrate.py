"""Calibration: one temperature, and how far a probability is from the share of raters it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.spatial.distance import jensenshannon  # type: ignore[import-untyped]

from mien.errors import ModelError
from training.data import Item, targets

Floats = npt.NDArray[np.float64]
BINS = 15


@dataclass(frozen=True)
class VoteCalibration:
    """A model's probabilities beside raters' votes."""

    images: int
    vote_gap: float
    """Mean over bins (weighted by images) of |mean confidence - mean share of votes for the predicted label|."""
    divergence: float
    """Mean Jensen-Shannon divergence (nats) between the model's probabilities and the votes."""
    divergence_half: float
    """The same against a random half of the raters."""
    divergence_raters: float
    """Mean Jensen-Shannon divergence (nats) between two random halves of the raters."""
    bins: tuple[tuple[float, float, int], ...]
    """(mean confidence, mean share of votes, images) per bin that is not empty."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def fit_temperature(probabilities: Floats, wanted: npt.NDArray[Any]) -> float:
    """The temperature (0.2 to 5) at which cross entropy against ``wanted`` is lowest.

    Guo et al. 2017, arXiv:1706.04599.

    Args:
        probabilities: [N, L] at temperature 1; wanted: [N, L] shares of votes or one-hot labels.
    """
    log_p = np.log(np.clip(probabilities, 1e-12, None))

    def cost(log_t: float) -> float:
        return float(-(wanted * log_softmax(log_p / np.exp(log_t))).sum(axis=1).mean())

    found = minimize_scalar(cost, bounds=(np.log(0.2), np.log(5.0)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def log_softmax(values: Floats) -> Floats:
    """Row-wise, in float64."""
    values = values - values.max(axis=1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))


def wanted_of(items: Sequence[Item], labels: Sequence[str]) -> npt.NDArray[np.float32]:
    """What temperature is fitted to: votes where there are any, else the label. See :func:`training.data.targets`."""
    return targets(items, labels)


def against_votes(
    probabilities: Floats, items: Sequence[Item], labels: Sequence[str], *, raters: int = 10, seed: int = 0
) -> VoteCalibration | None:
    """Judge probabilities as shares of raters; None where no image has votes.

    The two halves of the raters are drawn at random without replacement from each image's votes (``raters`` per image,
    those who chose none of ``labels`` left out).
    """
    chosen = [i for i, item in enumerate(items) if item.votes]
    if not chosen:
        return None
    p = probabilities[chosen]
    shares = targets([items[i] for i in chosen], labels).astype(np.float64)
    keep = shares.sum(axis=1) > 0
    p, shares = p[keep], shares[keep]
    predicted = p.argmax(axis=1)
    confidence = p.max(axis=1)
    agreed = shares[np.arange(len(p)), predicted]
    bins = reliability(confidence, agreed)
    gap = sum(abs(c - s) * n for c, s, n in bins) / len(p)
    random = np.random.default_rng(seed)
    counts = np.rint(shares * raters).astype(np.int64)
    first = np.stack([random.multivariate_hypergeometric(row, max(1, row.sum() // 2)) for row in counts])
    second = counts - first
    both = (first.sum(axis=1) > 0) & (second.sum(axis=1) > 0)
    return VoteCalibration(
        images=len(p),
        vote_gap=float(gap),
        divergence=_divergence(p, shares),
        divergence_half=_divergence(p[both], _shares(first[both])),
        divergence_raters=_divergence(_shares(first[both]), _shares(second[both])),
        bins=tuple(bins),
    )


def reliability(confidence: Floats, outcome: Floats, bins: int = BINS) -> list[tuple[float, float, int]]:
    """(mean confidence, mean outcome, count) in bins of equal width that hold anything."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    result = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            result.append((float(confidence[inside].mean()), float(outcome[inside].mean()), int(inside.sum())))
    return result


def fold_temperature(model: Any, temperature: float) -> None:
    """Divide the head's weights and bias by ``temperature``: the model's own softmax is then calibrated.

    Raises:
        ModelError: the model's head is not one linear layer.
    """
    head: Any = getattr(model, "classifier", None) or getattr(model, "head", None)
    if getattr(head, "weight", None) is None or getattr(head, "bias", None) is None or head.weight.ndim != 2:
        raise ModelError("The temperature cannot be folded in: the model's head is not one linear layer.")
    head.weight.data /= temperature
    head.bias.data /= temperature


def _shares(counts: npt.NDArray[np.int64]) -> Floats:
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _divergence(p: Floats, q: Floats) -> float:
    """scipy gives the square root of the divergence."""
    return float(np.square(jensenshannon(p, q, axis=1)).mean())
