"""The crops that wait for a device: filled by one thread per decoding process, emptied in batches by one thread.

A batch takes crops of any image, chunk and sender, as long as they go through the same classifier. Urgent images go
first and by themselves; the crops of a suspect go alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from worker.device_link import CropsHead
from worker.probabilities import Floats

if TYPE_CHECKING:
    from mien.images import RGB

MOST_WAITING_BYTES = 1 << 30
"""Beyond this much waiting pixels, senders are read no further."""


class Sender(Protocol):
    """Who sent crops and gets their answers."""

    def answer(self, frames: Iterable[bytes]) -> None:
        """Send answers."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


@dataclass(eq=False)
class DeviceImage:
    """An image at the device; ``rows`` fills up crop by crop."""

    sender: Sender
    head: CropsHead
    rows: list[Floats | None] = field(default_factory=list)
    left: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.rows = [None] * self.head.total
        self.left = self.head.total


@dataclass(eq=False)
class Crop:
    """One crop of an image: ``pixels`` is H x W x 3, uint8."""

    image: DeviceImage
    index: int
    pixels: RGB


class CropQueue:
    """Thread-safe."""

    def __init__(self, most_bytes: int = MOST_WAITING_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._urgent: dict[int, deque[Crop]] = {}
        self._alone: deque[Crop] = deque()
        self._normal: dict[int, deque[Crop]] = {}
        self._changed = threading.Condition()

    def put(self, crops: Sequence[Crop]) -> None:
        """Add crops of one image; waits while too many wait already."""
        with self._changed:
            while self._bytes > self._most_bytes:
                self._changed.wait()
            self._bytes += sum(crop.pixels.nbytes for crop in crops)
            for crop in crops:
                self._line(crop).append(crop)
            self._changed.notify_all()

    def give_back(self, crops: Sequence[Crop]) -> None:
        """Put crops that were taken back to the front, in their order."""
        with self._changed:
            self._bytes += sum(crop.pixels.nbytes for crop in crops)
            for crop in reversed(crops):
                self._line(crop).appendleft(crop)
            self._changed.notify_all()

    def take(self, limit: Callable[[int], int]) -> list[Crop]:
        """Wait for crops, and take as many as may go together: ``limit`` gives the most for a spec, 0 for "not yet"."""
        with self._changed:
            while not (chosen := self._choose(limit)):
                self._changed.wait()
            self._bytes -= sum(crop.pixels.nbytes for crop in chosen)
            self._changed.notify_all()
            return chosen

    def look_again(self) -> None:
        """Something that ``limit`` depends on has changed."""
        with self._changed:
            self._changed.notify_all()

    def drop(self, unwanted: Callable[[DeviceImage], bool]) -> list[DeviceImage]:
        """Forget the crops of some images; gives those images, each once."""
        dropped: dict[int, DeviceImage] = {}
        with self._changed:
            for line in [*self._urgent.values(), self._alone, *self._normal.values()]:
                for crop in [crop for crop in line if unwanted(crop.image)]:
                    line.remove(crop)
                    self._bytes -= crop.pixels.nbytes
                    dropped[id(crop.image)] = crop.image
            self._changed.notify_all()
        return list(dropped.values())

    def _line(self, crop: Crop) -> deque[Crop]:
        head = crop.image.head
        if head.alone:
            return self._alone
        return (self._urgent if head.urgent else self._normal).setdefault(head.spec, deque())

    def _choose(self, limit: Callable[[int], int]) -> list[Crop]:
        if chosen := self._first_of(self._urgent, limit):
            return chosen
        if self._alone and (most := limit(self._alone[0].image.head.spec)):
            image = self._alone[0].image
            own = [crop for crop in self._alone if crop.image is image][:most]
            for crop in own:
                self._alone.remove(crop)
            return own
        return self._first_of(self._normal, limit)

    def _first_of(self, lines: dict[int, deque[Crop]], limit: Callable[[int], int]) -> list[Crop]:
        for spec, line in list(lines.items()):
            if not line:
                del lines[spec]
            elif most := limit(spec):
                chosen = [line.popleft() for _ in range(min(most, len(line)))]
                lines[spec] = lines.pop(spec)  # specs take turns
                return chosen
        return []
