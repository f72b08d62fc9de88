"""A chunk out of object storage: its objects are read ahead into memory and go to the engines group by group.

Nothing is written to a disk. Reads overlap each other and the engines' work; what is held in memory is bounded by a
budget of bytes, by the sizes that were listed.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

from mien.errors import ImageError
from mien.ledger.commit import ImageOutcome
from mien.ledger.lease import LeasedImage
from worker.known import Known
from worker.supervisor import Aborted

GROUP = 16
"""Images that go to the engines with one call."""
GROUPS = 8
"""Calls under way at once, so that no engine waits for the last image of a group."""
BUDGET_BYTES = 256 << 20
UNKNOWN_BYTES = 8 << 20
"""What an object is taken for whose size was not listed."""
LOOK_EVERY_S = 0.2

Read = Callable[[LeasedImage], Future[bytes]]
LookUp = Callable[[set[bytes]], Mapping[bytes, ImageOutcome]]
Classify = Callable[[Sequence[tuple[LeasedImage, bytes]], threading.Event], list[ImageOutcome]]


@dataclass
class _Group:
    images: list[tuple[LeasedImage, bytes]] = field(default_factory=list)
    size: int = 0


@dataclass
class ObjectChunk:
    """The images of one lease on their way. ``starved_s``: how long the engines had nothing of it, for want of bytes.

    ``read`` begins to read an image; ``look_up`` gives what the ledger knows of contents (None: nothing is known);
    ``classify`` takes images with their bytes through the engines.
    """

    images: Sequence[LeasedImage]
    read: Read
    look_up: LookUp | None
    classify: Classify
    reads: int
    abort: threading.Event
    starved_s: float = 0.0

    def __post_init__(self) -> None:
        self._todo = deque(self.images)
        self._reading: deque[tuple[LeasedImage, Future[bytes]]] = deque()
        self._group = _Group()
        self._working: dict[Future[list[ImageOutcome]], _Group] = {}
        self._held = 0
        self._classified: list[ImageOutcome] = []
        self._known: dict[int, ImageOutcome] = {}
        self._first: dict[bytes, int] = {}
        self._copies: dict[int, int] = {}
        self._stop = threading.Event()

    def outcomes(self) -> list[ImageOutcome]:
        """The outcome of each image.

        Raises:
            Aborted: ``abort`` was set.
            StoreAwayError: the storage cannot be read just now; nothing of the chunk counts.
            ModelError, EngineStartError: as the engines say.
        """
        with ThreadPoolExecutor(GROUPS, thread_name_prefix="objects") as threads:
            try:
                while self._todo or self._reading or self._group.images or self._working:
                    self._step(threads)
            finally:
                self._stop.set()  # after a trouble the groups under way end at once
                for _, reading in self._reading:
                    reading.cancel()
        known = Known(self._known, self._copies)
        return [*self._known.values(), *self._classified, *known.copied([*self._classified, *self._known.values()])]

    def _step(self, threads: ThreadPoolExecutor) -> None:
        if self.abort.is_set():
            raise Aborted("the caller gave up")
        self._read_ahead()
        while self._reading and self._reading[0][1].done():
            self._take(*self._reading.popleft())
            if len(self._group.images) == GROUP:
                self._hand_over(threads)
        # what is there goes on its way when no more comes soon: the end, a full budget, idle engines
        if self._group.images and (not self._reading or not self._working):
            self._hand_over(threads)
        self._wait()

    def _read_ahead(self) -> None:
        while self._todo and len(self._reading) < self.reads:
            size = _size(self._todo[0])
            if self._held and self._held + size > BUDGET_BYTES:
                return
            image = self._todo.popleft()
            self._held += size
            self._reading.append((image, self.read(image)))

    def _take(self, image: LeasedImage, reading: Future[bytes]) -> None:
        try:
            data = reading.result()
        except ImageError as error:
            self._held -= _size(image)
            self._known[image.id] = ImageOutcome(image.id, "failed", error_code=error.code, error=error.detail)
            return
        content = hashlib.sha256(data).digest()
        original = self._first.setdefault(content, image.id)
        found = self.look_up({content}).get(content) if self.look_up and original == image.id else None
        if found is not None:
            self._known[image.id] = replace(found, image_id=image.id)
        elif original != image.id:
            self._copies[image.id] = original
        else:
            self._group.images.append((image, data))
            self._group.size += _size(image)
            return
        self._held -= _size(image)

    def _hand_over(self, threads: ThreadPoolExecutor) -> None:
        group, self._group = self._group, _Group()
        self._working[threads.submit(self.classify, group.images, self._stop)] = group

    def _wait(self) -> None:
        """Until a read or a group has ended, or it is time to look around."""
        if not self._reading and not self._working:
            return
        began = time.monotonic()
        ends: list[Future[Any]] = [*self._working]
        if self._reading:
            ends.append(self._reading[0][1])
        wait(ends, LOOK_EVERY_S, FIRST_COMPLETED)
        if not self._working:
            self.starved_s += time.monotonic() - began
        for done in [future for future in self._working if future.done()]:
            group = self._working.pop(done)
            self._held -= group.size
            self._classified.extend(done.result())


def _size(image: LeasedImage) -> int:
    return UNKNOWN_BYTES if image.size is None else image.size
