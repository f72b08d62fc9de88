"""How the pages show a label: its colour (one of eight, a class of the style sheet) and its glyph, never colour alone.

Labels come from the models; those that people know under several words share a colour in every model. A label that is
not known takes a colour that no other label of its model has, as long as there are some.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

COLOURS = 8
GLYPHS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
"""The emotion of each colour, by its number in the style sheet (``e0`` to ``e7``), and the name of its glyph."""
OTHER_GLYPH = "face"

_STEMS = (
    ("neutral", 0), ("calm", 0), ("happ", 1), ("joy", 1), ("smil", 1), ("surpri", 2), ("sad", 3), ("ang", 4),
    ("disgust", 5), ("fear", 6), ("scared", 6), ("afraid", 6), ("contempt", 7),
)  # fmt: skip


def known(label: str) -> int | None:
    """The colour of a label that means one of the eight emotions, whatever form its name has; else None."""
    word = label.strip().lower()
    return next((number for stem, number in _STEMS if word.startswith(stem)), None)


@lru_cache(maxsize=256)
def _colours(labels: tuple[str, ...]) -> dict[str, int]:
    found = {label: number for label in labels if (number := known(label)) is not None}
    free = [number for number in (3, 1, 5, 4, 6, 2, 7, 0) if number not in found.values()]
    for place, label in enumerate(label for label in labels if label not in found):
        found[label] = free[place] if place < len(free) else place % COLOURS
    return found


def colour_class(label: str, labels: Sequence[str] = ()) -> str:
    """The style sheet's class (``e0`` to ``e7``) of ``label`` among the ``labels`` of its model."""
    colours = _colours(tuple(labels))
    if label in colours:
        return f"e{colours[label]}"
    number = known(label)
    return f"e{number if number is not None else sum(label.encode()) % COLOURS}"


def glyph(label: str) -> str:
    """The name of the label's glyph in ``static/glyphs.svg``."""
    number = known(label)
    return OTHER_GLYPH if number is None else GLYPHS[number]
