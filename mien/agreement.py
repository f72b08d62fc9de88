"""How far people and a model agree: weighted shares with intervals, and Cohen's kappa.

Small formulas of our own, because scikit-learn belongs to the extra for training; tests hold them against it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""


@dataclass(frozen=True)
class Share:
    """A share of faces, estimated from a sample, with its 95% interval. ``value`` is None where no face tells."""

    value: float | None
    low: float | None
    high: float | None
    faces: int
    """Faces in the sample that it rests on."""


NOTHING = Share(None, None, None, 0)


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95% score interval of a share seen in ``count`` independent faces (Wilson 1927, JASA 22:209).

    ``count`` may be an effective sample size, as in Korn and Graubard (1998), Survey Methodology 24:193.
    """
    if count <= 0:
        return 0.0, 1.0
    z2 = Z_95 * Z_95 / count
    middle = (share + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def weighted_share(seen: Iterable[tuple[bool, float]]) -> Share:
    """The share of faces for which something holds, of (whether it does, how many faces this one stands for).

    The interval is Wilson's with Kish's effective sample size, (sum of weights)^2 / sum of squared weights (Kish 1965,
    Survey Sampling, 11.7). It ignores what stratifying gains, so it is rather too wide than too narrow.
    """
    found = list(seen)
    total = math.fsum(weight for _, weight in found)
    if not found or total <= 0:
        return NOTHING
    value = math.fsum(weight for holds, weight in found if holds) / total
    effective = total * total / math.fsum(weight * weight for _, weight in found)
    low, high = wilson(value, effective)
    return Share(value, low, high, len(found))


def cohen_kappa(pairs: Sequence[tuple[str, str]], weights: Sequence[float] | None = None) -> float | None:
    """Cohen's kappa of two raters (Cohen 1960): their agreement beyond that of chance, 1 when they always agree.

    kappa = (po - pe) / (1 - pe), po the share of pairs that agree, pe the sum over labels of the products of both
    raters' shares; with ``weights`` all shares are weighted. None where it is not defined: no pairs, or both name one
    and the same label each time.
    """
    weight_of = [1.0] * len(pairs) if weights is None else list(weights)
    total = math.fsum(weight_of)
    if total <= 0:
        return None
    first: dict[str, float] = {}
    second: dict[str, float] = {}
    agreed = 0.0
    for (one, other), weight in zip(pairs, weight_of, strict=True):
        first[one] = first.get(one, 0.0) + weight
        second[other] = second.get(other, 0.0) + weight
        if one == other:
            agreed += weight
    by_chance = math.fsum(weight * second.get(label, 0.0) for label, weight in first.items()) / (total * total)
    if math.isclose(by_chance, 1.0):
        return None
    return (agreed / total - by_chance) / (1 - by_chance)
