"""Charts as SVG, drawn on the server: they need no script, print well, and take their colours from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LABEL_WIDTH = 116
BAR_WIDTH = 220
VALUE_WIDTH = 124
ROW = 30
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


@dataclass(frozen=True)
class Segment:
    """A part of a bar that stands for the whole; ``start`` and ``width`` in percent of it."""

    label: str
    count: int
    share: str
    start: float
    width: float


def segments(counts: Mapping[str, int]) -> list[Segment]:
    """The parts of a whole, side by side in their order; those that are zero are left out."""
    total = sum(counts.values())
    found: list[Segment] = []
    start = 0.0
    for label, count in counts.items():
        if count:
            width = 100 * count / total
            found.append(Segment(label, count, f"{width:.1f}%", round(start, 3), round(width, 3)))
            start += width
    return found


HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT = 460, 190
PLOT_LEFT, PLOT_TOP, PLOT_BOTTOM = 46, 10, 152


@dataclass(frozen=True)
class Column:
    """One column of a histogram, in the units of the drawing; ``words`` say what it stands for."""

    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Tick:
    """A mark at an axis."""

    at: float
    words: str


@dataclass(frozen=True)
class Histogram:
    """Columns over a range from 0 to 1; ``sentence`` says the most important in words."""

    columns: tuple[Column, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    sentence: str
    width: int = HISTOGRAM_WIDTH
    height: int = HISTOGRAM_HEIGHT


def confidence_histogram(counts: Sequence[int]) -> Histogram | None:
    """How many faces there are of each confidence; None where there is none."""
    total, most = sum(counts), max(counts, default=0)
    if not total:
        return None
    wide = (HISTOGRAM_WIDTH - PLOT_LEFT - 8) / len(counts)
    tall = PLOT_BOTTOM - PLOT_TOP
    top = _round_up(most)
    columns = tuple(
        Column(
            x=round(PLOT_LEFT + number * wide + 1, 1),
            y=round(PLOT_BOTTOM - tall * count / top, 1),
            width=round(wide - 2, 1),
            height=round(tall * count / top, 1),
            words=f"{100 * number // len(counts)} to {100 * (number + 1) // len(counts)}%: {count:,} faces",
        )
        for number, count in enumerate(counts)
        if count
    )
    across = tuple(
        Tick(round(PLOT_LEFT + share * wide * len(counts), 1), f"{round(100 * share)}%")
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    up = tuple(Tick(round(PLOT_BOTTOM - tall * part, 1), _short(round(top * part))) for part in (0, 0.5, 1))
    doubtful = sum(counts[: len(counts) // 2])
    sure = sum(counts[-len(counts) // 5 :])
    sentence = (
        f"Of {total:,} faces {100 * sure / total:.0f}% were named with a confidence of 80% or more, "
        f"{100 * doubtful / total:.0f}% with less than 50%."
    )
    return Histogram(columns, across, up, sentence)


def _round_up(number: int) -> int:
    """The next number of one or two digits and zeros, even where it can be halved in whole."""
    unit = int(10 ** max(0, len(str(number)) - 2))
    rounded = -(-number // unit) * unit
    return rounded + unit if (rounded // unit) % 2 and rounded > 1 else rounded


def _short(number: int) -> str:
    """1,200 as 1.2k."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + letter
    return str(number)
