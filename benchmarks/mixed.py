"""The mixed folder of the throughput figures: 50% 640x480, 25% 224x224, 20% 1280x960, 5% 12 megapixels."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

SIZES = ((0.50, (640, 480)), (0.25, (224, 224)), (0.20, (1280, 960)), (0.05, (4000, 3000)))
QUALITY = 90


def portraits(folder: Path) -> list[Image.Image]:
    """Every photograph in ``folder``, upright RGB."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    return [Image.open(path).convert("RGB") for path in found]


def make_mixed(photos: Path, target: Path, count: int, seed: int = 1) -> None:
    """``count`` JPEGs in the stated mix, each one of the ``photos`` filling its frame; the same for the same seed."""
    target.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    sources = portraits(photos)
    sizes = [size for share, size in SIZES for _ in range(round(share * count))][:count]
    rng.shuffle(sizes)
    for number, (width, height) in enumerate(sizes):
        source = rng.choice(sources)
        scale = max(width / source.width, height / source.height)
        scaled = source.resize((round(source.width * scale), round(source.height * scale)), Image.Resampling.LANCZOS)
        left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
        scaled.crop((left, top, left + width, top + height)).save(target / f"{number:06d}.jpg", quality=QUALITY)
