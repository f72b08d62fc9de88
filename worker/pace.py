"""How many images a worker takes at once: about ``MIEN_CHUNK_S`` seconds of work, as it has measured them."""

from __future__ import annotations

import threading
import time

from mien.ledger.lease import Kind
from mien.ledger.sizing import SMALLEST

LARGEST = 10_000
GROWTH = 4
"""A chunk is at most so many times as large as the one before: one quick chunk (all of it known) is no promise."""
WEIGHT = 0.5
"""Of the newest chunk in the measured pace."""


class Pace:
    """Seconds of work per image, by kind of job, and the chunk sizes that follow from them. Thread-safe.

    Several chunks share the engines. The work in a chunk is therefore counted on a clock that goes the slower the more
    chunks are in work (processor sharing): two chunks side by side for ten seconds are five seconds of work each.
    """

    def __init__(self, chunk_s: float, first: int) -> None:
        """``first``: images in the first chunk of a kind, before anything was measured."""
        self._chunk_s = chunk_s
        self._first = max(first, SMALLEST)
        self._seconds: dict[Kind, float] = {}
        self._sizes: dict[Kind, int] = {}
        self._last: Kind | None = None
        self._in_work = 0
        self._work = 0.0
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def wanted(self, kind: Kind) -> int:
        """Images for the next chunk of this kind."""
        with self._lock:
            seconds = self._seconds.get(kind)
            if seconds is None:
                return self._first
            most = min(GROWTH * self._sizes[kind], LARGEST)
            return max(SMALLEST, min(round(self._chunk_s / max(seconds, 1e-6)), most))

    def images_per_s(self) -> float | None:
        """Images that the engines do in a second, as measured over the last kind of chunks, while there is work."""
        with self._lock:
            seconds = self._seconds.get(self._last) if self._last is not None else None
        return None if not seconds else 1 / seconds

    def begin(self) -> float:
        """A chunk is in work from now on; gives the clock for :meth:`end`."""
        with self._lock:
            self._advance()
            self._in_work += 1
            return self._work

    def end(self, begun: float, kind: Kind | None = None, images: int = 0) -> None:
        """A chunk has left the engines; with ``kind`` and ``images`` it counts for the pace."""
        with self._lock:
            self._advance()
            self._in_work -= 1
            if kind is None or not images:
                return
            seconds = (self._work - begun) / images
            self._last = kind
            before = self._seconds.get(kind)
            self._seconds[kind] = seconds if before is None else WEIGHT * seconds + (1 - WEIGHT) * before
            self._sizes[kind] = max(images, self._sizes.get(kind, 0) // GROWTH)

    def _advance(self) -> None:
        now = time.monotonic()
        if self._in_work:
            self._work += (now - self._at) / self._in_work
        self._at = now
