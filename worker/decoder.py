"""A decoding process of a GPU worker: reads, decodes, finds faces and crops on the CPU; a device engine classifies.

The supervisor starts it as ``python -P -m worker.decoder FD CONFIG``, as it does any engine, and sees no difference: it
takes images and gives results. It goes on with the next image while the device has the last ones.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from mien.errors import ModelError
from mien.faults import fault_point
from mien.model_folder import Model
from mien.stage_times import add_lap
from worker.device_link import SEND_WAIT_S, SOCKET_BUFFER, crop_frames, receive_answer, send_parts
from worker.engine_life import live
from worker.faults import device_fault, read_faults
from worker.memory import resident_bytes
from worker.messages import (
    EngineSpec,
    Handed,
    pack,
    pack_results,
    unpack,
    unpack_images,
    unpack_spec,
)
from worker.specs import model_of

if TYPE_CHECKING:
    from worker.preparing import Prepared

IDLE_SIGN_S = 1.0
"""How often a process that waits for its device shows that it is alive."""
MODELS_KEPT = 8


@dataclass(frozen=True)
class DecoderConfig:
    """What the supervisor fixes for the life of a decoding process."""

    parent: int
    device: str
    """Path of its device engine's socket."""
    max_rss_bytes: int
    """Resident memory beyond which it asks to be replaced."""


class Inbox:
    """Images that wait in this process; a thread fills it, so that the supervisor's sending never blocks for long."""

    def __init__(self, pipe: Connection, device_gone: Callable[[], None]) -> None:
        self.specs: dict[int, EngineSpec] = {}
        self._pipe = pipe
        self._device_gone = device_gone
        self._urgent: deque[Handed] = deque()
        self._waiting: deque[Handed] = deque()
        self._arrived = threading.Condition()

    def start(self) -> None:
        """Begin to receive."""
        threading.Thread(target=self._receive, name="inbox", daemon=True).start()

    def take(self, timeout: float) -> Handed | None:
        """The next image, urgent ones first; None if none came in time."""
        with self._arrived:
            if not (self._urgent or self._waiting):
                self._arrived.wait(timeout)
            if self._urgent:
                return self._urgent.popleft()
            return self._waiting.popleft() if self._waiting else None

    def drop(self, number: int) -> None:
        """Forget the images of a spec that cannot be served."""
        with self._arrived:
            for line in (self._urgent, self._waiting):
                kept = [work for work in line if work.spec != number]
                line.clear()
                line.extend(kept)

    def _receive(self) -> None:
        try:
            while True:
                content = unpack(self._pipe.recv_bytes())
                match content["kind"]:
                    case "spec":
                        self.specs[content["number"]] = unpack_spec(content)
                    case "images":
                        with self._arrived:
                            for image in unpack_images(content):
                                (self._urgent if image.first else self._waiting).append(image)
                            self._arrived.notify()
                    case "device_gone":
                        self._device_gone()
        except (EOFError, OSError):
            os._exit(0)  # the supervisor closed the pipe, or is gone
        except BaseException:
            traceback.print_exc()
            os._exit(1)


class Device:
    """The way to the device engine, and the images that it has. ``say`` sends to the supervisor; thread-safe.

    When the connection ends, the process says ``lost`` and waits: only once the supervisor knows which images were on
    the device (``device_gone``) are they given back, and the next engine's crops sent.
    """

    def __init__(self, path: str, say: Callable[[bytes], None]) -> None:
        self._path = path
        self._say = say
        self._there: dict[int, Prepared] = {}
        self._sent_at: dict[int, float] = {}
        self._changed = threading.Condition()
        self._link: socket.socket | None = None

    def connect(self) -> None:
        """Connect; the engine takes the connection once it is ready."""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        link.settimeout(SEND_WAIT_S)
        link.connect(self._path)
        with self._changed:
            self._link = link
            self._changed.notify_all()
        threading.Thread(target=self._receive, args=(link,), name="answers", daemon=True).start()

    def __len__(self) -> int:
        return len(self._there)

    def classify(self, image: Prepared, work: Handed, fault: str, sign: Callable[[], None]) -> None:
        """Hand an image's crops over; its result goes to the supervisor when the answer comes."""
        with self._changed:
            while self._link is None:
                self._changed.wait(IDLE_SIGN_S)
                sign()
            link = self._link
            self._there[work.task.key] = image
            self._sent_at[work.task.key] = time.monotonic()
        with contextlib.suppress(OSError):  # the thread that receives notices as well, and says so
            for parts in crop_frames(
                work.spec, work.task.key, image.crops, urgent=work.first, alone=work.alone, fault=fault
            ):
                send_parts(link, parts, sign)
        image.crops = []

    def wait(self, timeout: float) -> None:
        """Until an answer came, or the time is over."""
        with self._changed:
            self._changed.wait(timeout)

    def gone(self) -> None:
        """The supervisor has noted the device engine's end: give its images back, and wait for the next one."""
        with self._changed:
            link, self._link = self._link, None
            tickets = list(self._there)
            self._there.clear()
            self._sent_at.clear()
        if link is not None:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        self._say(pack("returned", tickets=tickets))
        self.connect()

    def _receive(self, link: socket.socket) -> None:
        try:
            while True:
                answer = receive_answer(link)
                with self._changed:
                    image = self._there.pop(answer.ticket, None)
                    sent_at = self._sent_at.pop(answer.ticket, 0.0)
                    self._changed.notify_all()
                if image is None or answer.rows is None:
                    continue
                waited = max(time.monotonic() - sent_at - answer.seconds, 0.0)
                add_lap(image.times, "classify", (answer.seconds, waited))
                self._say(pack_results([image.result(list(answer.rows))]))
        except (EOFError, OSError):
            link.close()
            if self._link is link:
                self._say(pack("lost"))
        except BaseException:
            traceback.print_exc()
            os._exit(1)


def serve(pipe: Connection, config: DecoderConfig) -> None:
    """The process's life: until the pipe closes, or it has grown too large."""
    speaking = threading.Lock()

    def say(message: bytes) -> None:
        with speaking:
            pipe.send_bytes(message)

    def sign() -> None:
        say(pack("sign"))

    device = Device(config.device, say)
    inbox = Inbox(pipe, device.gone)
    inbox.start()
    device.connect()
    # heavy and native, hence after the inbox: a parent that dies meanwhile is noticed
    from worker.preparing import Preparer  # noqa: PLC0415

    preparer = Preparer()
    faults = read_faults()
    models: dict[int, Model] = {}
    say(pack("ready"))
    while True:
        if (resident := resident_bytes()) is not None and resident > config.max_rss_bytes:
            _wait_for_answers(device, sign)
            say(pack("retire", resident=resident))
            return
        work = inbox.take(IDLE_SIGN_S)
        if work is None:
            if len(device):
                sign()
            continue
        spec = inbox.specs[work.spec]
        try:
            model = _model(models, work.spec, spec)
        except ModelError as error:
            inbox.drop(work.spec)
            say(pack("unusable", number=work.spec, code=error.code, detail=error.detail))
            continue
        say(pack("begin", ticket=work.task.key))
        image = preparer.prepare(work.task, spec, model)
        fault_point("after_decode")
        if image.crops:
            device.classify(image, work, device_fault(faults, work.task.path), sign)
        else:
            say(pack_results([image.result([])]))


def _model(models: dict[int, Model], number: int, spec: EngineSpec) -> Model:
    """The model of a spec, read once."""
    if number not in models:
        while len(models) >= MODELS_KEPT:
            del models[next(iter(models))]
        models[number] = model_of(spec)
    return models[number]


def _wait_for_answers(device: Device, sign: Callable[[], None]) -> None:
    """Before it leaves, the process waits for what the device has of it; the images behind go to others."""
    while len(device):
        device.wait(IDLE_SIGN_S)
        sign()


def main(arguments: list[str]) -> None:
    """Entry of the decoding process: the descriptor of its pipe, and its configuration as JSON."""
    live(arguments, DecoderConfig, serve)


if __name__ == "__main__":
    main(sys.argv[1:])
