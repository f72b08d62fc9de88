"""Looking at a folder of training images before training: counts, sizes, brightness, duplicates, unreadable files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mien.errors import ImageError
from mien.images import decode
from training.data import Dataset, Item, scan
from training.duplicates import difference_hash, group
from training.page import Page
from training.svg import bars

SAMPLES = 12
SHOWN = 50


@dataclass
class Found:
    """What was found in a root."""

    dataset: Dataset
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    brightness: dict[str, float] = field(default_factory=dict)
    grey: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    exact: list[list[str]] = field(default_factory=list)
    """Groups of files with the same content."""
    near: list[list[str]] = field(default_factory=list)
    """Groups of near-duplicates (by difference hash)."""
    samples: dict[str, list[npt.NDArray[np.uint8]]] = field(default_factory=dict)

    def across_splits(self, groups: list[list[str]]) -> list[list[str]]:
        """Those groups whose files lie in more than one split."""
        split = {item.name: name for name, items in self.dataset.splits.items() for item in items}
        return [names for names in groups if len({split[name] for name in names}) > 1]


def explore(folder: Path, *, votes: str | None = None, progress: Callable[[int, int], None] | None = None) -> Found:
    """Read every image of a root.

    Raises:
        DataError: no folders of images there.
    """
    if votes is None and (folder / "votes.csv").exists():
        votes = "votes.csv"
    found = Found(scan(folder, votes=votes))
    items = [item for members in found.dataset.splits.values() for item in members]
    digests: dict[bytes, list[str]] = defaultdict(list)
    names, hashes = [], []
    for position, item in enumerate(items):
        if progress and position % 200 == 0:
            progress(position, len(items))
        pixels = _read(item, found, digests)
        if pixels is not None:
            names.append(item.name)
            hashes.append(difference_hash(pixels))
    found.exact = [same for same in digests.values() if len(same) > 1]
    groups: dict[int, list[str]] = defaultdict(list)
    for name, number in zip(names, group(hashes), strict=True):
        groups[number].append(name)
    found.near = [members for members in groups.values() if len(members) > 1]
    return found


def _read(item: Item, found: Found, digests: dict[bytes, list[str]]) -> npt.NDArray[np.uint8] | None:
    try:
        data = item.path.read_bytes()
        image = decode(data)
    except (ImageError, OSError) as error:
        found.unreadable.append((item.name, getattr(error, "detail", str(error))))
        return None
    digests[hashlib.sha256(data).digest()].append(item.name)
    pixels = image.pixels
    found.sizes[item.name] = (image.width, image.height)
    found.brightness[item.name] = float(pixels.mean())
    found.formats[image.format] += 1
    found.grey += bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
    shown = found.samples.setdefault(item.label or "unclear", [])
    if len(shown) < SAMPLES:
        picture = Image.fromarray(pixels)
        picture.thumbnail((96, 96))
        shown.append(np.asarray(picture))
    return pixels


def summary(found: Found) -> dict[str, Any]:
    """What was found, for JSON."""
    sides = np.array([min(size) for size in found.sizes.values()] or [0])
    light = np.array(list(found.brightness.values()) or [0.0])
    counts = {split: found.dataset.counts(split) for split in found.dataset.splits}
    largest = {split: max(table.values()) / max(1, min(table.values())) for split, table in counts.items()}
    return {
        "root": found.dataset.root.name,
        "labels": list(found.dataset.labels),
        "counts": counts,
        "imbalance": {split: round(ratio, 2) for split, ratio in largest.items()},
        "images": len(found.sizes),
        "grey": found.grey,
        "formats": dict(found.formats),
        "shorter_side": dict(zip(("min", "p10", "median", "p90", "max"), _five(sides), strict=True)),
        "brightness": dict(zip(("min", "p10", "median", "p90", "max"), _five(light), strict=True)),
        "unreadable": [list(entry) for entry in found.unreadable],
        "other_files": len(found.dataset.ignored),
        "duplicates": {"exact": found.exact, "exact_across_splits": found.across_splits(found.exact)},
        "near_duplicates": {"groups": found.near, "across_splits": found.across_splits(found.near)},
        "with_votes": sum(1 for items in found.dataset.splits.values() for item in items if item.votes),
    }


def write_report(found: Found, folder: Path) -> dict[str, Any]:
    """Write ``explore.json`` and ``explore.html``; gives the JSON's content."""
    folder.mkdir(parents=True, exist_ok=True)
    content = summary(found)
    (folder / "explore.json").write_text(json.dumps(content, indent=2, ensure_ascii=True) + "\n")
    page = Page(f"Images in {content['root']}")
    page.text(
        f"{content['images']} images read ({content['grey']} grey), {len(found.unreadable)} unreadable, "
        f"{content['other_files']} other files, {content['with_votes']} with raters' votes."
    )
    page.charts(*(bars(counts, title=f"Images per label, {split}") for split, counts in content["counts"].items()))
    page.table(("imbalance (largest label over smallest)", "ratio"), content["imbalance"].items())
    sides = [min(size) for size in found.sizes.values()]
    if sides:
        page.charts(
            bars(_histogram(sides), title="Shorter side, pixels"),
            bars(_histogram(list(found.brightness.values())), title="Mean brightness, 0 to 255"),
        )
    page.heading("Duplicates")
    page.table(
        ("kind", "groups", "groups across splits"),
        (
            ("same content", len(found.exact), len(found.across_splits(found.exact))),
            ("near-duplicates", len(found.near), len(found.across_splits(found.near))),
        ),
    )
    page.table(("files alike",), ((", ".join(names[:6]),) for names in [*found.exact, *found.near][:SHOWN]))
    if found.unreadable:
        page.heading("Unreadable")
        page.table(("file", "reason"), found.unreadable[: 4 * SHOWN])
    for label, pictures in sorted(found.samples.items()):
        page.heading(label)
        page.pictures((picture, "") for picture in pictures)
    page.write(folder / "explore.html")
    return content


def _five(values: npt.NDArray[Any]) -> list[float]:
    return [round(float(v), 2) for v in np.percentile(values, [0, 10, 50, 90, 100])]


def _histogram(values: list[int] | list[float], bins: int = 10) -> dict[str, float]:
    counts, edges = np.histogram(values, bins=bins)
    return {f"{edges[i]:.0f} to {edges[i + 1]:.0f}": int(count) for i, count in enumerate(counts)}
