"""One self-contained HTML page: headings, tables, charts, pictures as data URIs. No script, nothing loaded."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

_STYLE = """
:root{color-scheme:light}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;
margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.8rem 0}th,td{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}
figure{display:inline-block;margin:.3rem;text-align:center;vertical-align:top}
figure img{width:84px;height:84px;object-fit:contain;image-rendering:auto}
figcaption{font-size:11px;max-width:90px;overflow-wrap:anywhere}
.charts{display:flex;flex-wrap:wrap;gap:1rem}svg{max-width:100%;height:auto}
"""


class Page:
    """Collects parts, writes the page."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """A section's heading."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table; numbers with fractions are shown with four digits."""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def charts(self, *charts: str) -> None:
        """SVG charts side by side."""
        self._parts.append(f'<div class="charts">{"".join(f"<div>{chart}</div>" for chart in charts)}</div>')

    def pictures(self, pictures: Iterable[tuple[npt.NDArray[np.uint8], str]]) -> None:
        """Small pictures (uint8 [H, W, 3]) with captions."""
        for pixels, caption in pictures:
            self._parts.append(
                f'<figure><img alt="{escape(caption, quote=True)}" src="{data_uri(pixels)}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )

    def write(self, path: Path) -> None:
        """Write the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f"<style>{_STYLE}</style></head><body><h1>{escape(self.title)}</h1>{''.join(self._parts)}</body></html>\n",
            encoding="utf-8",
            errors="backslashreplace",
        )


def data_uri(pixels: npt.NDArray[np.uint8], side: int = 96) -> str:
    """A JPEG of at most ``side`` pixels as a data URI."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else escape(str(value))
