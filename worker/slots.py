"""Places for engine processes, as their supervisor keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.engine_process import EngineProcess
from worker.messages import Handed, pack_images, pack_spec
from worker.queueing import Hand, Item


@dataclass(frozen=True)
class EngineStatus:
    """One engine now: its process, memory and images in hand."""

    pid: int
    ready: bool
    resident_bytes: int | None
    images: int


@dataclass(eq=False)
class Slot:
    """A place for an engine; every occupant gets a new one of the same number."""

    number: int
    process: EngineProcess | None = None
    ready: bool = False
    loading: int | None = None
    """The spec whose model it loads."""
    hand: Hand = field(default_factory=Hand)
    outgoing: list[Handed] = field(default_factory=list)
    """Images of its hand that are yet to be sent."""
    specs: set[int] = field(default_factory=set)
    """The specs that it was told."""
    last_sign: float = 0.0
    killed_for: str | None = None
    retired: bool = False
    failed_starts: int = 0
    start_at: float = 0.0
    lost_at: float | None = None
    """When a decoding process lost the connection to its device engine; None while it has one."""

    linked: int = 0
    """How many engines of its device had ended when it was last told to connect."""

    @property
    def takes_images(self) -> bool:
        """Whether it may be fed."""
        return self.ready and self.killed_for is None and not self.retired

    def take(self, ticket: int, item: Item) -> None:
        """An image comes into its hand, to be sent with the others; the process learns the image's spec if need be."""
        if self.process is None:
            raise AssertionError("an empty slot was fed")
        self.hand.put(ticket, item)
        request = item.request
        if request.number not in self.specs:
            self.specs.add(request.number)
            self.process.send(pack_spec(request.number, request.spec))
        self.outgoing.append(Handed(ticket, request.number, item.task, first=request.interactive, alone=item.suspect))

    def send_outgoing(self) -> None:
        """Send the process what of its hand it was not sent yet."""
        for message in pack_images(self.outgoing):
            if self.process is not None:
                self.process.send(message)
        self.outgoing.clear()
