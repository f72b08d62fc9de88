"""The same picture twice: exact copies by content, near-duplicates by a difference hash of the small grey image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

NEAR = 3
"""Bits of 64 in which the hashes of near-duplicates may differ."""
_BANDS = NEAR + 1


def difference_hash(pixels: npt.NDArray[np.uint8]) -> int:
    """64 bits: whether each pixel of the image shrunk to 9 x 8 grey pixels is brighter than its right neighbour.

    Args:
        pixels: [H, W, 3], uint8. Images without any detail hash to 0 and are never near-duplicates.
    """
    small = np.asarray(Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BILINEAR), np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def group(hashes: Sequence[int]) -> list[int]:
    """A group number per image: images joined by a chain of near-duplicates share one.

    Hashes that differ in at most NEAR bits agree in one of NEAR + 1 bands at least, so only those are compared.
    """
    parent = list(range(len(hashes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    width = 64 // _BANDS
    for band in range(_BANDS):
        buckets: dict[int, list[int]] = defaultdict(list)
        for i, value in enumerate(hashes):
            if value:
                buckets[(value >> (band * width)) & ((1 << width) - 1)].append(i)
        for members in buckets.values():
            _join_near(members, hashes, parent, root)
    return [root(i) for i in range(len(hashes))]


def _join_near(members: list[int], hashes: Sequence[int], parent: list[int], root: object) -> None:
    if len(members) < 2:
        return
    values = np.array([hashes[i] for i in members], np.uint64)
    for position, i in enumerate(members[:-1]):
        near = np.bitwise_count(values[position + 1 :] ^ values[position]) <= NEAR
        for offset in np.flatnonzero(near):
            first, second = _roots(i, members[position + 1 + int(offset)], root)
            parent[max(first, second)] = min(first, second)


def _roots(i: int, j: int, root: object) -> tuple[int, int]:
    assert callable(root)  # noqa: S101 - for the type checker
    return root(i), root(j)
