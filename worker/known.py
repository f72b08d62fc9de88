"""What need not be classified: images whose content was classified before, and copies within one chunk."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from mien.database import Database
from mien.errors import ImageError
from mien.ledger.cache import look_up, may_have
from mien.ledger.commit import ImageOutcome
from mien.ledger.lease import ChunkLease, LeasedImage
from mien.sources import open_image
from mien.stage_times import ENGINE_TIME_FIELDS, Clock

HASH_BLOCK = 1 << 20
HASHERS = min(4, os.cpu_count() or 1)
FEW = 16
"""Files that are not worth threads."""
_NO_TIME: dict[str, Any] = dict.fromkeys(ENGINE_TIME_FIELDS, 0.0)


@dataclass(frozen=True)
class Known:
    """``outcomes``: image id -> what the ledger knows. ``copies``: image id -> an image with equal bytes.
    ``hashing``: seconds (worked, waited) that reading and hashing took, summed over threads."""

    outcomes: Mapping[int, ImageOutcome]
    copies: Mapping[int, int]
    hashing: tuple[float, float] = (0.0, 0.0)

    def rest(self, lease: ChunkLease) -> list[LeasedImage]:
        """The images that have to be classified."""
        return [image for image in lease.images if image.id not in self.outcomes and image.id not in self.copies]

    def copied(self, classified: Iterable[ImageOutcome]) -> list[ImageOutcome]:
        """The outcomes of the copies, once their originals are classified. A repeated failure is not called cached."""
        by_id = {outcome.image_id: outcome for outcome in classified}
        made = []
        for image_id, original in self.copies.items():
            outcome = by_id[original]
            cached = outcome.outcome != "failed"
            made.append(replace(outcome, image_id=image_id, cached=cached, **_NO_TIME))
        return made


def find_known(db: Database, lease: ChunkLease, max_file_bytes: int) -> Known:
    """Hash what may be known and look it up.

    Every file is hashed where another job of the owner has the fingerprint; else only files of equal size within the
    chunk, since only they can be equal. A file that cannot be read is left to the engine, which says why.
    """
    look = bool(lease.images) and may_have(db, lease)
    sizes = {image.id: size for image in lease.images if (size := _size(lease, image)) and size <= max_file_bytes}
    alike: dict[int, int] = defaultdict(int)
    for size in sizes.values():
        alike[size] += 1
    doubtful = [i for i in lease.images if i.id in sizes and (look or alike[sizes[i.id]] > 1)]
    hashed = _hash_all(lease, doubtful)
    hashes = {image.id: digest for image, (digest, _) in zip(doubtful, hashed, strict=True) if digest}
    found = look_up(db, lease, set(hashes.values())) if look else {}
    outcomes = {i: replace(found[digest], image_id=i) for i, digest in hashes.items() if digest in found}
    first: dict[bytes, int] = {}
    copies = {
        i: original
        for i, digest in hashes.items()
        if i not in outcomes and (original := first.setdefault(digest, i)) != i
    }
    worked, waited = (sum(lap[kind] for _, lap in hashed) for kind in (0, 1))
    return Known(outcomes, copies, (worked, waited))


def _hash_all(lease: ChunkLease, images: Sequence[LeasedImage]) -> list[tuple[bytes | None, tuple[float, float]]]:
    """Digests, and what each took. Reading and hashing let go of the interpreter: threads share the cores."""

    def hash_one(image: LeasedImage) -> tuple[bytes | None, tuple[float, float]]:
        clock = Clock()
        return _hash(lease, image), clock.lap()

    if len(images) < FEW:
        return [hash_one(image) for image in images]
    with ThreadPoolExecutor(HASHERS, thread_name_prefix="hash") as pool:
        return list(pool.map(hash_one, images))


def _size(lease: ChunkLease, image: LeasedImage) -> int | None:
    try:
        return os.stat(os.path.join(lease.source_path, image.file), follow_symlinks=False).st_size  # noqa: PTH116, PTH118
    except OSError:
        return None


def _hash(lease: ChunkLease, image: LeasedImage) -> bytes | None:
    """SHA-256 of the file as it is opened safely below the source, None if it cannot be read."""
    try:
        descriptor = open_image(lease.source_path, image.file, lease.source_identity)
    except ImageError:
        return None
    digest = hashlib.sha256()
    try:
        while block := os.read(descriptor, HASH_BLOCK):
            digest.update(block)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return digest.digest()
