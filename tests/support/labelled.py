"""Small folders of labelled images for the tests of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def labelled_folder(root: Path, counts: Mapping[str, int], *, side: int = 24, seed: int = 0) -> Path:
    """``root/<name>/<number>.png`` for each name (which may hold a slash): noise around a grey of its own per label."""
    random = np.random.default_rng(seed)
    labels = sorted({name.rsplit("/", 1)[-1].lower() for name in counts})
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        place = labels.index(folder.name.lower())
        for number in range(count):
            pixels = random.integers(0, 256, (side, side, 3))
            band = slice(place * side // len(labels), (place + 1) * side // len(labels))
            pixels[band] = 255 if number % 2 else 230
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root
