"""Splitting off validation images: stratified by label, near-duplicates on one side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mien.errors import ImageError
from training.crops import read_image
from training.data import Dataset, Item, resplit
from training.duplicates import difference_hash, group

VALID_SHARE = 0.1


def split_off_valid(dataset: Dataset, *, share: float = VALID_SHARE, seed: int = 0) -> Dataset:
    """The same root with a ``valid`` split taken from its training images, about ``share`` of every label."""
    source = "train" if "train" in dataset.splits else "all"
    items = dataset.splits.get(source, ())
    chosen = halves(items, groups_of(items), share=share, seed=seed)
    return resplit(
        dataset,
        {
            **{split: members for split, members in dataset.splits.items() if split not in ("all", "train")},
            "train": tuple(item for item, valid in zip(items, chosen, strict=True) if not valid),
            "valid": tuple(item for item, valid in zip(items, chosen, strict=True) if valid),
        },
    )


def groups_of(items: Sequence[Item]) -> list[int]:
    """Near-duplicate groups of image files; unreadable ones are alone."""
    hashes = []
    for item in items:
        try:
            hashes.append(difference_hash(read_image(item.path).pixels))
        except (ImageError, OSError):
            hashes.append(0)
    return group(hashes)


def halves(items: Sequence[Item], groups: Sequence[int], *, share: float = 0.5, seed: int = 0) -> list[bool]:
    """Whether each image belongs to the side that takes ``share`` of every label; a group stays together."""
    by_group: dict[int, list[int]] = defaultdict(list)
    for position, number in enumerate(groups):
        by_group[number].append(position)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for members in by_group.values():
        by_label[items[members[0]].label or ""].append(members)
    chosen = [False] * len(items)
    random = np.random.default_rng(seed)
    for label in sorted(by_label):
        clusters = by_label[label]
        total, taken = sum(len(members) for members in clusters), 0
        for index in random.permutation(len(clusters)):
            if taken >= round(total * share):
                break
            for position in clusters[index]:
                chosen[position] = True
            taken += len(clusters[index])
    return chosen
