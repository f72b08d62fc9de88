"""Boxes laid over a picture, in percent of it: they fit whatever size it is shown at, and their words keep theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TAG_HEIGHT = 20
TAG_MARGIN = 26.0
LETTER = 6.9
"""Pixels that a letter of a tag takes (600 12px sans-serif)."""


@dataclass(frozen=True)
class Box:
    """One face's box: place and size in percent of the picture, its tag in pixels from there."""

    number: int
    label: str
    words: str
    x: float
    y: float
    width: float
    height: float
    tag_y: float
    tag_dy: float
    tag_width: float


def boxes_of(
    faces: Iterable[Mapping[str, Any]], width: int | None, height: int | None, *, named: int | None = None
) -> list[Box]:
    """The boxes of an image of ``width`` x ``height`` pixels; none where its size is not known.

    Each has a tag with its emotion and confidence, above the box or, where the picture ends there, inside it. For small
    pictures: only the first ``named`` say their emotion, and the others show its glyph alone.
    """
    if not width or not height:
        return []
    return [_box(face, width, height, _words(face, place, named)) for place, face in enumerate(faces)]


def _words(face: Mapping[str, Any], place: int, named: int | None) -> str:
    if named is None:
        return f"{face['emotion']} {100 * face['confidence']:.0f}%"
    return str(face["emotion"]) if place < named else ""


def _box(face: Mapping[str, Any], width: int, height: int, words: str) -> Box:
    y, tall = 100 * face["y"] / height, 100 * face["height"] / height
    above = y > 10  # room for the tag, unless the picture is shown very small
    return Box(
        number=face["face"],
        label=face["emotion"],
        words=words,
        x=round(100 * face["x"] / width, 2),
        y=round(y, 2),
        width=round(100 * face["width"] / width, 2),
        height=round(tall, 2),
        tag_y=round(y, 2),
        tag_dy=-TAG_HEIGHT - 4 if above else 4,
        tag_width=round(TAG_MARGIN + LETTER * len(words) if words else TAG_HEIGHT - 2.0, 1),
    )
