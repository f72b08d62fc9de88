"""Drawings of reviews and models: shares with their intervals, and the shades of a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LABEL_WIDTH = 78
TRACK_WIDTH = 110
VALUE_WIDTH = 172
ROW = 32
SHADES = 10


@dataclass(frozen=True)
class IntervalRow:
    """One share, in the units of the drawing; ``dot`` is None where no face tells."""

    label: str
    middle: float
    dot: float | None
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class IntervalChart:
    """Shares from 0 to 100% with their 95% intervals; ``sentence`` says the same in words."""

    rows: tuple[IntervalRow, ...]
    width: int
    height: int
    grid: tuple[tuple[float, str], ...]
    sentence: str


def interval_chart(shares: Sequence[tuple[str, Mapping[str, Any]]]) -> IntervalChart:
    """Draw (label, share); a share has ``value``, ``low``, ``high`` and ``faces``."""
    rows = tuple(_row(number, label, share) for number, (label, share) in enumerate(shares))
    grid = tuple((LABEL_WIDTH + TRACK_WIDTH * tenth / 10, f"{10 * tenth}%") for tenth in (0, 5, 10))
    return IntervalChart(
        rows,
        LABEL_WIDTH + TRACK_WIDTH + VALUE_WIDTH,
        len(rows) * ROW + 22,
        grid,
        "; ".join(f"{row.label}: {row.words}" for row in rows) + ".",
    )


def _row(number: int, label: str, share: Mapping[str, Any]) -> IntervalRow:
    middle = number * ROW + ROW / 2
    if share["value"] is None:
        return IntervalRow(label, middle, None, 0, 0, "no face")
    value, low, high = (LABEL_WIDTH + TRACK_WIDTH * share[name] for name in ("value", "low", "high"))
    words = f"{100 * share['value']:.0f}% ({100 * share['low']:.0f} to {100 * share['high']:.0f}), {share['faces']}"
    return IntervalRow(label, middle, round(value, 1), round(low, 1), round(high, 1), words)


def heat(value: float, total: float) -> str:
    """The style sheet's class (``h0`` to ``h10``) for a cell that holds this share of its row."""
    return f"h{0 if total <= 0 else min(SHADES, round(SHADES * value / total))}"
