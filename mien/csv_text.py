"""CSV as it is written here: cells as people and spreadsheets can read them, in pieces as large as a page of rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class CsvText:
    """Rows in, UTF-8 out."""

    def __init__(self) -> None:
        self._buffer = io.StringIO()
        self._plain = csv.writer(self._buffer, lineterminator="\n")
        # before Python 3.13 a carriage return inside a cell is not quoted unless everything is
        self._quoting = csv.writer(self._buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def add(self, rows: Iterable[Sequence[object]], *, has_returns: bool = False) -> None:
        """Write rows; ``has_returns``: a cell of theirs may hold a carriage return."""
        (self._quoting if has_returns else self._plain).writerows(rows)

    def take(self) -> bytes:
        """What was written since this was asked last."""
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text.encode()


def cell_text(value: str, spreadsheet: bool) -> str:
    """A text cell; for spreadsheets, one that would run as a formula gets a ``'`` in front."""
    return f"'{value}" if spreadsheet and value.lstrip(" ").startswith(FORMULA_STARTS) else value


def cell_number(value: float | int | None) -> str:
    """Plain decimal notation, no trailing zeros: 0.5, 12, never 1e-05."""
    if value is None:
        return ""
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text
