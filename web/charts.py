"""Charts as SVG, drawn on the server: they need no script, print well, and take their colours from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LABEL_WIDTH = 96
BAR_WIDTH = 200
VALUE_WIDTH = 124
ROW = 30
BAR = 18
SHORTEST = 2.0


@dataclass(frozen=True)
class Bar:
    """One bar, in the units of the drawing (one unit is one CSS pixel at full size)."""

    label: str
    count: int
    share: str
    y: int
    length: float

    @property
    def end(self) -> float:
        """Where the number stands."""
        return LABEL_WIDTH + self.length + 8

    @property
    def middle(self) -> float:
        """The height of the row's text."""
        return self.y + ROW / 2


@dataclass(frozen=True)
class BarChart:
    """A horizontal bar chart; ``sentence`` says the same in words."""

    bars: tuple[Bar, ...]
    width: int
    height: int
    sentence: str


def bar_chart(counts: Mapping[str, int]) -> BarChart | None:
    """Bars of ``counts``, the largest first; None where there is nothing to show."""
    total = sum(counts.values())
    if total == 0:
        return None
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    most = ordered[0][1]
    bars = tuple(
        Bar(
            label=label,
            count=count,
            share=f"{100 * count / total:.1f}%",
            y=number * ROW,
            length=max(SHORTEST, BAR_WIDTH * count / most) if count else 0,
        )
        for number, (label, count) in enumerate(ordered)
    )
    words = ", ".join(f"{bar.label} {bar.count} ({bar.share})" for bar in bars)
    return BarChart(bars, LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH, len(bars) * ROW, f"{total} faces: {words}.")
