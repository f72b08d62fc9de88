"""Charts as SVG text: bars, lines, a heat map, points about a diagonal. No library, no script, readable in print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

COLOURS = ("#2f6f9f", "#c8553d", "#588157", "#8e6c8a", "#b8860b", "#5f6b73")
_TEXT = 'font-family="system-ui, sans-serif" font-size="12" fill="#222"'


def bars(values: Mapping[str, float], *, title: str, unit: str = "", width: int = 560) -> str:
    """Horizontal bars, one per name."""
    top, row = 28, 22
    highest = max([*values.values(), 1e-9])
    left = 8 + 7 * max((len(name) for name in values), default=0)
    parts = []
    for i, (name, value) in enumerate(values.items()):
        y = top + i * row
        length = max(0.0, (width - left - 90) * value / highest)
        parts.append(f'<text x="{left - 6}" y="{y + 14}" text-anchor="end" {_TEXT}>{escape(name)}</text>')
        parts.append(f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="15" fill="{COLOURS[0]}"/>')
        parts.append(f'<text x="{left + length + 5:.1f}" y="{y + 15}" {_TEXT}>{_number(value)}{escape(unit)}</text>')
    return _svg(width, top + row * len(values) + 8, title, parts)


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], *, title: str, across: str, up: str, width: int = 560
) -> str:
    """Line charts over a common pair of axes."""
    height, left, top = 280, 60, 28
    points = [point for values in series.values() for point in values]
    if not points:
        return _svg(width, 60, title + " (no data)", [])
    low_x, high_x = _range([x for x, _ in points])
    low_y, high_y = _range([y for _, y in points])
    plot_w, plot_h = width - left - 20, height - top - 50

    def place(x: float, y: float) -> str:
        across_px = left + (x - low_x) / (high_x - low_x) * plot_w
        return f"{across_px:.1f},{top + plot_h - (y - low_y) / (high_y - low_y) * plot_h:.1f}"

    parts = _axes(_Frame(left, top, plot_w, plot_h), (low_x, high_x), (low_y, high_y), across=across, up=up)
    for i, (name, values) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in values)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(
            f'<text x="{left + 8 + 150 * i}" y="{height - 4}" {_TEXT} style="fill:{colour}">{escape(name)}</text>'
        )
    return _svg(width, height, title, parts)


def reliability(bins: Sequence[tuple[float, float, int]], *, title: str, up: str, width: int = 360) -> str:
    """Mean outcome against mean confidence per bin, discs by the number of images, beside the diagonal."""
    left, top, side = 50, 28, width - 70
    most = max((count for _, _, count in bins), default=1)
    parts = _axes(_Frame(left, top, side, side), (0, 1), (0, 1), across="confidence", up=up)
    parts.append(f'<path d="M{left} {top + side}L{left + side} {top}" stroke="#999" stroke-dasharray="4 4"/>')
    for confidence, outcome, count in bins:
        x, y = left + confidence * side, top + side - outcome * side
        radius = 3 + 9 * (count / most) ** 0.5
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{COLOURS[0]}" fill-opacity="0.75">'
            f"<title>{count} images: confidence {confidence:.3f}, {escape(up)} {outcome:.3f}</title></circle>"
        )
    return _svg(width, top + side + 46, title, parts)


def heat_map(table: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], *, title: str) -> str:
    """A confusion matrix: counts, shaded by their share of the row."""
    cell, left, top = 54, 8 + 7 * max(len(name) for name in rows), 58
    parts = []
    for j, name in enumerate(columns):
        x = left + j * cell + cell / 2
        parts.append(f'<text x="{x:.0f}" y="{top - 8}" text-anchor="middle" {_TEXT}>{escape(name[:8])}</text>')
    for i, (name, row) in enumerate(zip(rows, table, strict=True)):
        y = top + i * 30
        parts.append(f'<text x="{left - 6}" y="{y + 19}" text-anchor="end" {_TEXT}>{escape(name)}</text>')
        total = max(1, sum(row))
        for j, value in enumerate(row):
            share = value / total
            colour = "#fff" if share > 0.55 else "#222"
            parts.append(
                f'<rect x="{left + j * cell}" y="{y}" width="{cell - 2}" height="28" fill="{COLOURS[0]}" '
                f'fill-opacity="{0.04 + 0.96 * share:.2f}"/>'
                f'<text x="{left + j * cell + cell / 2 - 1:.0f}" y="{y + 19}" '
                f'text-anchor="middle" {_TEXT} style="fill:{colour}">{value}</text>'
            )
    return _svg(left + cell * len(columns) + 10, top + 30 * len(rows) + 10, title, parts)


class _Frame(NamedTuple):
    left: int
    top: int
    width: int
    height: int


def _axes(frame: _Frame, xs: tuple[float, float], ys: tuple[float, float], *, across: str, up: str) -> list[str]:
    left, top, width, height = frame
    parts = [f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#666"/>']
    for i in range(5):
        x, y = left + width * i / 4, top + height - height * i / 4
        label_x, label_y = xs[0] + (xs[1] - xs[0]) * i / 4, ys[0] + (ys[1] - ys[0]) * i / 4
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#eee"/>')
        parts.append(
            f'<text x="{x:.0f}" y="{top + height + 15}" text-anchor="middle" {_TEXT}>{_number(label_x)}</text>'
        )
        parts.append(f'<text x="{left - 5}" y="{y + 4:.0f}" text-anchor="end" {_TEXT}>{_number(label_y)}</text>')
    parts.append(f'<text x="{left + width}" y="{top + height + 31}" text-anchor="end" {_TEXT}>{escape(across)}</text>')
    parts.append(f'<text x="{left + 4}" y="{top + 12}" {_TEXT}>{escape(up)}</text>')
    return parts


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
        f'<text x="4" y="16" {_TEXT} font-weight="600">{escape(title)}</text>{"".join(parts)}</svg>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
