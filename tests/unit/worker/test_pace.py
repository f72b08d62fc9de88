"""Chunk sizes follow the measured pace."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mien.ledger.lease import Kind
from mien.ledger.sizing import SMALLEST
from worker import pace
from worker.pace import GROWTH, LARGEST, Pace

FAST = Kind("a" * 64, "int8", "whole", 640)
SLOW = Kind("b" * 64, "fp32", "detect", 640)


class Wall:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(pace, "time", wall)
    return wall


def work(measured: Pace, wall: Wall, kind: Kind, per_image: float) -> int:
    """One chunk at a pace; gives its size."""
    count = measured.wanted(kind)
    begun = measured.begin()
    wall.now += count * per_image
    measured.end(begun, kind, count)
    return count


@pytest.mark.parametrize("per_image", [0.2, 0.03, 0.004, 0.0008])
def test_sizes_settle_at_the_seconds_asked_for(wall: Wall, per_image: float) -> None:
    measured = Pace(5.0, first=32)
    sizes = [work(measured, wall, SLOW, per_image) for _ in range(12)]
    assert sizes[0] == 32
    assert sizes[-1] == pytest.approx(5.0 / per_image, rel=0.01)
    assert all(later <= GROWTH * earlier for earlier, later in pairwise(sizes))


def test_a_change_of_pace_is_followed(wall: Wall) -> None:
    measured = Pace(5.0, first=32)
    for _ in range(8):
        work(measured, wall, SLOW, 0.01)
    assert [work(measured, wall, SLOW, 0.05) for _ in range(8)][-1] == pytest.approx(100, abs=2)


def test_kinds_have_paces_of_their_own(wall: Wall) -> None:
    measured = Pace(5.0, first=32)
    for _ in range(12):
        work(measured, wall, SLOW, 0.1)
        work(measured, wall, FAST, 0.001)
    assert measured.wanted(SLOW) == 50
    assert measured.wanted(FAST) == 5000


def test_chunks_side_by_side_share_the_work(wall: Wall) -> None:
    measured = Pace(5.0, first=100)
    first, second = measured.begin(), measured.begin()
    wall.now += 10
    measured.end(first, SLOW, 100)
    measured.end(second, SLOW, 100)
    assert measured.wanted(SLOW) == 100  # 200 images in ten seconds are 5 seconds for each hundred


def test_limits(wall: Wall) -> None:
    measured = Pace(5.0, first=1)
    assert measured.wanted(SLOW) == SMALLEST
    for _ in range(20):
        work(measured, wall, FAST, 0.0)
    assert measured.wanted(FAST) == LARGEST
    measured.end(measured.begin())  # given up: it counts for nothing
    assert measured.wanted(SLOW) == SMALLEST
    work(measured, wall, SLOW, 60.0)
    assert measured.wanted(SLOW) == SMALLEST
