"""What stands in the bar above every page. A page adds itself with :func:`add_entry` where it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app, request

EXTENSION = "mien-navigation"


@dataclass(frozen=True)
class Entry:
    """A link of the bar: the endpoint it leads to, its words, its place (small is left)."""

    endpoint: str
    words: str
    place: int


def add_entry(app: Flask, endpoint: str, words: str, place: int = 50) -> None:
    """Show a link to ``endpoint`` on every page of ``app``."""
    app.extensions.setdefault(EXTENSION, []).append(Entry(endpoint, words, place))


def entries() -> list[tuple[Entry, bool]]:
    """The links in their order, and whether each is the page that is shown (or the part of Mien it lies in)."""
    found = cast(list[Entry], current_app.extensions.get(EXTENSION, []))
    part = (request.endpoint or "").partition(".")[0]
    return [
        (entry, entry.endpoint == request.endpoint or entry.endpoint.partition(".")[0] == part != "pages")
        for entry in sorted(found, key=lambda entry: entry.place)
    ]
