"""Which image goes to which engine next: requests take turns, urgent ones first, suspects alone. No process here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from worker.messages import EngineSpec, ImageResult, ImageTask

HAND_BYTES = 48 << 10
"""Most bytes of paths in an engine's hands, so that its pipe never fills."""
_MESSAGE_BYTES = 200


@dataclass(eq=False)
class Request:
    """One call of ``classify``. ``number`` stands for its spec; ``left`` counts the images without a result."""

    spec: EngineSpec
    number: int
    tasks: Sequence[ImageTask]
    interactive: bool
    waiting: deque[Item]
    results: list[ImageResult | None]
    left: int
    error: Exception | None = None


@dataclass(eq=False)
class Item:
    """One image of a request: ``suspect``: only alone; ``begun``: an engine touched it; ``points``: see verdicts;
    ``verdict``: code and detail of the last, where it waits for its image to come back."""

    request: Request
    index: int
    suspect: bool = False
    begun: bool = False
    points: int = 0
    verdict: tuple[str, str] | None = None

    @property
    def task(self) -> ImageTask:
        """What is to be classified."""
        return self.request.tasks[self.index]


@dataclass(eq=False)
class Hand:
    """The images in one engine's hands, by ticket."""

    items: dict[int, Item] = field(default_factory=dict)
    size: int = 0

    def __len__(self) -> int:
        return len(self.items)

    @property
    def alone(self) -> bool:
        """Whether it holds a suspect."""
        return any(item.suspect for item in self.items.values())

    def put(self, ticket: int, item: Item) -> None:
        """Take an image."""
        item.begun = False
        self.items[ticket] = item
        self.size += _size(item)

    def pop(self, ticket: int) -> Item | None:
        """Give an image back; None if it is not held (any more)."""
        item = self.items.pop(ticket, None)
        if item is not None:
            self.size -= _size(item)
        return item


def _size(item: Item) -> int:
    return len(item.task.root) + len(item.task.path) + _MESSAGE_BYTES


class Queue:
    """The images that wait. Its user holds a lock."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.window = 2 * batch
        self.requests: deque[Request] = deque()
        self.suspects: deque[Item] = deque()
        self._numbers: dict[EngineSpec, int] = {}

    def accept(self, spec: EngineSpec, tasks: Sequence[ImageTask], *, interactive: bool, alone: bool) -> Request:
        """Take a request in."""
        number = self._numbers.setdefault(spec, len(self._numbers))
        request = Request(spec, number, tasks, interactive, deque(), [None] * len(tasks), len(tasks))
        items = [Item(request, index, suspect=alone) for index in range(len(tasks))]
        (self.suspects if alone else request.waiting).extend(items)
        self.requests.append(request)
        return request

    def spec(self, number: int) -> EngineSpec | None:
        """What a number stands for."""
        return next((spec for spec, other in self._numbers.items() if other == number), None)

    def fail(self, request: Request, error: Exception) -> None:
        """End a request that is not done yet with an error."""
        if request.left and request.error is None:
            request.error = error
            self._forget(request)

    def finish(self, item: Item, result: ImageResult) -> None:
        """Note an image's result; the first one stands."""
        request = item.request
        if request.error is not None or request.results[item.index] is not None:
            return
        request.results[item.index] = result
        request.left -= 1
        if not request.left:
            self._forget(request)

    def take_back(self, items: Iterable[Item], *, may_be_guilty: bool) -> None:
        """Images of an ended engine: those begun become suspects, the others go back to the front of their queue."""
        for item in reversed(list(items)):
            if item.request.error is not None:
                continue
            if item.begun and may_be_guilty:
                item.suspect = True
            (self.suspects if item.suspect else item.request.waiting).appendleft(item)

    def reserved(self, hands: Sequence[Hand], *, one_comes_free: bool) -> Hand | None:
        """The hand that runs empty so that a suspect can be alone in it; None if one comes free for that anyway."""
        if not self.suspects or one_comes_free or any(hand.alone for hand in hands):
            return None
        return min(hands, key=len, default=None)

    def next_for(self, hand: Hand, reserved: Hand | None) -> Item | None:
        """The next image for a hand; None if it holds enough or nothing waits that it may take."""
        held = len(hand)
        if hand.alone or (held and hand.size >= HAND_BYTES):
            return None
        if held < self.window + self.batch:
            for request in self.requests:
                if request.interactive and request.waiting:
                    return request.waiting.popleft()
        if not held and self.suspects:
            return self.suspects.popleft()
        if held >= self.window or hand is reserved:
            return None
        for _ in range(len(self.requests)):  # image by image, the requests take turns
            request = self.requests[0]
            self.requests.rotate(-1)
            if request.waiting:
                return request.waiting.popleft()
        return None

    def _forget(self, request: Request) -> None:
        request.waiting.clear()
        self.suspects = deque(item for item in self.suspects if item.request is not request)
        if request in self.requests:
            self.requests.remove(request)
