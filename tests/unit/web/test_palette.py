"""The colours of the emotions: visible in both themes, and apart for people with colour-blindness."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

from web.emotions import COLOURS, GLYPHS, colour_class, glyph

STATIC = Path(__file__).parents[3] / "web" / "static"
TOKENS = (STATIC / "tokens.css").read_text()
# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB
VISION = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
APART = {"all colours": 20.0, "protanopia": 9.0, "deuteranopia": 9.0, "tritanopia": 7.0}
"""Smallest distance (CIE76) between two emotions; 2.3 is just noticeable, side by side."""
Colour = tuple[float, float, float]


def pair(name: str) -> tuple[str, str]:
    found = re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\)", TOKENS)
    assert found, name
    return found.group(1), found.group(2)


def linear(code: str) -> Colour:
    red, green, blue = (int(code[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return tuple(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue))  # type: ignore[return-value]


def luminance(colour: Colour) -> float:
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(linear(one)), luminance(linear(other))), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(colour: Colour) -> Colour:
    red, green, blue = (min(max(v, 0.0), 1.0) for v in colour)
    xyz = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883,
    )
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_stand_out_from_the_page(theme: int) -> None:
    for ground in ("paper", "card", "sunk"):
        for name in (f"e{number}" for number in range(COLOURS)):
            assert contrast(pair(name)[theme], pair(ground)[theme]) >= 3, (name, ground)
        for name in ("ink", "quiet", "accent", "bad", "good"):
            assert contrast(pair(name)[theme], pair(ground)[theme]) >= 4.5, (name, ground)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("kind", VISION)
def test_emotions_are_told_apart(theme: int, kind: str) -> None:
    seen = {}
    for number in range(COLOURS):
        colour = linear(pair(f"e{number}")[theme])
        seen[GLYPHS[number]] = lab(tuple(sum(m * c for m, c in zip(row, colour, strict=True)) for row in VISION[kind]))  # type: ignore[arg-type]
    close = {
        (one, other): round(distance, 1)
        for one, other in combinations(seen, 2)
        if (distance := sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5) < APART[kind]
    }
    assert close == {}


def test_labels_of_any_model_get_a_colour_and_a_glyph() -> None:
    labels = ("Anger", "happiness", "bored", "Sadness", "excited")
    classes = [colour_class(label, labels) for label in labels]
    assert classes[0] == "e4" and classes[1] == "e1" and classes[3] == "e3"
    assert len(set(classes)) == len(labels)
    assert [glyph(label) for label in labels] == ["angry", "happy", "face", "sad", "face"]
    many = tuple(f"label {number}" for number in range(30))
    assert {colour_class(label, many) for label in many} == {f"e{number}" for number in range(COLOURS)}
    symbols = (STATIC / "glyphs.svg").read_text()
    assert all(f'<symbol id="{name}"' in symbols for name in (*GLYPHS, "face"))
