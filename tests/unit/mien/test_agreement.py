"""Our small formulas, against what was published and, where it is installed, against scikit-learn and scipy."""

from __future__ import annotations

import random

import pytest

from mien.agreement import NOTHING, cohen_kappa, weighted_share, wilson
from mien.sampling import Stratum, allocate, strata_of

LABELS = ("happy", "sad", "neutral")


def test_wilson_as_published() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
                                   (1, 29, 0.0061, 0.1718)):  # fmt: skip
        assert wilson(hits / count, count) == pytest.approx((low, high), abs=5e-5)
    assert wilson(0.5, 0) == (0.0, 1.0)


def test_equal_weights_change_nothing() -> None:
    seen = [True] * 81 + [False] * 182
    share = weighted_share((holds, 3.5) for holds in seen)
    assert (share.value, share.faces) == (pytest.approx(81 / 263), 263)
    assert (share.low, share.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert weighted_share([]) == NOTHING


def test_weights_move_the_share_and_widen_the_interval() -> None:
    even = weighted_share([(True, 1.0), (False, 1.0)] * 50)
    uneven = weighted_share([(True, 9.0), (False, 1.0)] * 50)
    assert (even.value, uneven.value) == (0.5, 0.9)
    alike = weighted_share([(True, 1.0)] * 90 + [(False, 1.0)] * 10)
    assert (uneven.high or 0) - (uneven.low or 0) > (alike.high or 0) - (alike.low or 0)


def test_kappa_as_published() -> None:
    # Cohen 1960, table 1: proportions of 200 cases, kappa = .492
    table = {("A", "A"): 88, ("A", "B"): 14, ("A", "C"): 18, ("B", "A"): 10, ("B", "B"): 40, ("B", "C"): 10,
             ("C", "A"): 2, ("C", "B"): 6, ("C", "C"): 12}  # fmt: skip
    pairs = [pair for pair, count in table.items() for _ in range(count)]
    assert cohen_kappa(pairs) == pytest.approx(0.492, abs=5e-4)


def test_kappa_at_its_ends() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("sad", "sad")] * 5) is None  # one label alone: nothing beyond chance can be seen
    assert cohen_kappa([("sad", "sad"), ("happy", "happy")]) == 1.0
    assert cohen_kappa([("sad", "happy"), ("happy", "sad")]) == -1.0


@pytest.mark.torch
def test_kappa_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    randomly = random.Random(3)
    for _ in range(20):
        first = randomly.choices(LABELS, (6, 3, 1), k=80)
        second = [one if randomly.random() < 0.6 else randomly.choice(LABELS) for one in first]
        weights = [randomly.uniform(0.5, 40) for _ in first]
        pairs = list(zip(first, second, strict=True))
        assert cohen_kappa(pairs) == pytest.approx(metrics.cohen_kappa_score(first, second))
        weighted = metrics.cohen_kappa_score(first, second, sample_weight=weights)
        assert cohen_kappa(pairs, weights) == pytest.approx(weighted)


@pytest.mark.torch
def test_wilson_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for hits, count in ((0, 9), (4, 9), (9, 9), (137, 1000)):
        found = stats.binomtest(hits, count).proportion_ci(method="wilson")
        assert wilson(hits / count, count) == pytest.approx((found.low, found.high))


def populations(*counts: int) -> dict[Stratum, int]:
    strata = [stratum for label in ("a", "b", "c") for stratum in strata_of(label)]
    return dict(zip(strata, counts, strict=False))


@pytest.mark.parametrize("size", [1, 5, 6, 9, 11, 17, 200, 5000])
def test_the_allocation_adds_up_and_gives_no_more_than_there_is(size: int) -> None:
    there = populations(10_000, 400, 0, 60, 1, 3, 900)
    given = allocate(there, size)
    assert sum(given.values()) == min(size, sum(there.values()))
    assert all(0 < count <= there[stratum] for stratum, count in given.items())


def test_rare_strata_get_more_than_their_share_and_frequent_ones_the_most() -> None:
    there = populations(10_000, 100, 0, 100)
    large, small, other = allocate(there, 120).values()
    assert large == pytest.approx(100, abs=2) and small == pytest.approx(10, abs=2) and small == other


def test_a_job_smaller_than_the_sample_is_taken_whole() -> None:
    there = populations(5, 1, 0, 2)
    assert allocate(there, 100) == {stratum: count for stratum, count in there.items() if count}
