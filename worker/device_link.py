"""What decoding processes and a device engine say to each other over a unix socket: crops there, answers back.

Fixed headers and raw bytes: nothing is interpreted, and a process that dies in the middle of a frame ends its
connection without a trace. The kernel's buffer between them is small: a device that is behind slows its decoders down.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from worker.probabilities import Floats

if TYPE_CHECKING:
    from mien.images import RGB

CROPS_PER_FRAME = 32
MAX_SIDE = 4096
SOCKET_BUFFER = 1 << 20
SEND_WAIT_S = 1.0
"""How long a sender waits for room before it looks around."""
_CROPS = struct.Struct("<IQIIIHHB16s")
_ANSWER = struct.Struct("<QiId")
_URGENT, _ALONE = 1, 2
_DROPPED = -1


@dataclass(frozen=True)
class CropsHead:
    """What stands before the pixels of some of an image's crops."""

    spec: int
    """The number that stands for the image's spec."""
    ticket: int
    total: int
    """Crops of the image, over all its frames."""
    first: int
    """Index of this frame's first crop."""
    count: int
    height: int
    width: int
    urgent: bool
    alone: bool
    """Whether no other image may be on the device with it."""
    fault: str
    """A fault that the device commits on it; for tests only, empty otherwise."""


@dataclass(frozen=True)
class Answer:
    """A device's answer for an image: ``rows`` (crops x labels), or None if the device dropped it."""

    ticket: int
    rows: Floats | None
    seconds: float
    """The device's time spent on it."""


def crop_frames(
    spec: int, ticket: int, crops: Sequence[RGB], *, urgent: bool, alone: bool, fault: str
) -> Iterator[list[memoryview]]:
    """The frames of an image's crops, all of one size, each as parts to be sent one after the other."""
    flags = _URGENT * urgent | _ALONE * alone
    for first in range(0, len(crops), CROPS_PER_FRAME):
        some = crops[first : first + CROPS_PER_FRAME]
        height, width, _ = some[0].shape
        head = _CROPS.pack(spec, ticket, len(crops), first, len(some), height, width, flags, fault.encode())
        yield [memoryview(head), *(np.ascontiguousarray(crop).data.cast("B") for crop in some)]


def send_parts(link: socket.socket, parts: Sequence[memoryview], while_waiting: Callable[[], None]) -> None:
    """Send all of ``parts``; ``while_waiting`` is called every second in which nothing could be sent.

    The socket has a timeout of ``SEND_WAIT_S``.

    Raises:
        OSError: the other side is gone.
    """
    for part in parts:
        sent = 0
        while sent < len(part):
            try:
                sent += link.send(part[sent:])
            except TimeoutError:
                while_waiting()


def receive_crops(link: socket.socket) -> tuple[CropsHead, RGB]:
    """The next frame: its head, and its crops (N x H x W x 3, uint8).

    Raises:
        EOFError: the other side has ended.
        ValueError: what came is no frame.
        OSError: the connection broke.
    """
    head = bytearray(_CROPS.size)
    _fill(link, memoryview(head))
    spec, ticket, total, first, count, height, width, flags, fault = _CROPS.unpack(head)
    if not (
        0 < count <= CROPS_PER_FRAME and first + count <= total and 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE
    ):
        raise ValueError("not a frame of crops")
    pixels = np.empty((count, height, width, 3), np.uint8)
    _fill(link, pixels.data.cast("B"))
    name = fault.rstrip(b"\0").decode("ascii")
    urgent, alone = bool(flags & _URGENT), bool(flags & _ALONE)
    return CropsHead(spec, ticket, total, first, count, height, width, urgent, alone, name), pixels


def answer_frame(ticket: int, rows: Floats | None, seconds: float) -> bytes:
    """An answer as bytes."""
    if rows is None:
        return _ANSWER.pack(ticket, _DROPPED, 0, seconds)
    return _ANSWER.pack(ticket, len(rows), rows.shape[1], seconds) + np.ascontiguousarray(rows, np.float32).tobytes()


def receive_answer(link: socket.socket) -> Answer:
    """The next answer.

    Raises:
        EOFError: the device engine has ended.
        OSError: the connection broke.
    """
    head = bytearray(_ANSWER.size)
    _fill(link, memoryview(head))
    ticket, count, labels, seconds = _ANSWER.unpack(head)
    if count == _DROPPED:
        return Answer(ticket, None, seconds)
    rows = np.empty((count, labels), np.float32)
    _fill(link, rows.data.cast("B"))
    return Answer(ticket, rows, seconds)


def _fill(link: socket.socket, view: memoryview) -> None:
    while view:
        try:
            count = link.recv_into(view)
        except TimeoutError:
            continue
        if not count:
            raise EOFError
        view = view[count:]
