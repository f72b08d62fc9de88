"""One engine process: takes images from its pipe, runs them through the stages, sends the results back.

The supervisor starts it as ``python -P -m worker.engine FD CONFIG`` with one end of a socket pair. It ignores the
signals of the terminal and leaves when its parent is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection

from mien.errors import ModelError
from worker.engine_life import live
from worker.memory import resident_bytes
from worker.messages import (
    EngineSpec,
    ImageTask,
    pack,
    pack_results,
    unpack,
    unpack_images,
    unpack_spec,
)


@dataclass(frozen=True)
class EngineConfig:
    """What the supervisor fixes for the life of an engine."""

    parent: int
    """Process id of the supervisor."""
    batch: int
    """Images taken up at once, and crops per pass through a network, at most."""
    max_rss_bytes: int
    """Resident memory beyond which the engine asks to be replaced."""


class Inbox:
    """Images that wait in this engine; a thread fills it, so that the supervisor's sending never blocks for long."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._specs: dict[int, EngineSpec] = {}
        self._waiting: OrderedDict[int, tuple[int, ImageTask, bool]] = OrderedDict()
        self._arrived = threading.Condition()
        threading.Thread(target=self._receive, name="inbox", daemon=True).start()

    def take(self, at_once: Callable[[EngineSpec], int]) -> tuple[int, EngineSpec, list[ImageTask]]:
        """Wait for images: up to ``at_once`` of one spec (its number, the spec, the images), urgent ones first."""
        with self._arrived:
            while not self._waiting:
                self._arrived.wait()
            urgent = any(first for _, _, first in self._waiting.values())
            number = next(spec for spec, _, first in self._waiting.values() if first == urgent)
            fitting = (t for t, (spec, _, first) in self._waiting.items() if (spec, first) == (number, urgent))
            tickets = list(islice(fitting, at_once(self._specs[number])))
            return number, self._specs[number], [self._waiting.pop(ticket)[1] for ticket in tickets]

    def take_urgent(self, is_loaded: Callable[[EngineSpec], bool]) -> tuple[EngineSpec, ImageTask] | None:
        """An urgent image whose classifier is loaded, without waiting; None if there is none."""
        with self._arrived:
            for ticket, (number, task, first) in self._waiting.items():
                if first and is_loaded(self._specs[number]):
                    del self._waiting[ticket]
                    return self._specs[number], task
        return None

    def drop(self, number: int) -> None:
        """Forget the images of a spec that cannot be served."""
        with self._arrived:
            for ticket in [t for t, (spec, _, _) in self._waiting.items() if spec == number]:
                del self._waiting[ticket]

    def _receive(self) -> None:
        try:
            while True:
                content = unpack(self._pipe.recv_bytes())
                with self._arrived:
                    if content["kind"] == "spec":
                        self._specs[content["number"]] = unpack_spec(content)
                    elif content["kind"] == "images":
                        for image in unpack_images(content):
                            self._waiting[image.ticket] = (image.spec, image.task, image.first)
                        self._arrived.notify()
        except (EOFError, OSError):
            os._exit(0)  # the supervisor closed the pipe, or is gone: whatever the main thread does is of no use now


def serve(pipe: Connection, config: EngineConfig) -> None:
    """The engine's life: until the pipe closes, or it has grown too large."""
    inbox = Inbox(pipe)
    # heavy and native, hence after the inbox: a parent that dies meanwhile is noticed
    from worker.stages import Stages  # noqa: PLC0415

    stages = Stages(device="cpu", batch=config.batch, sign=lambda: pipe.send_bytes(pack("sign")))
    pipe.send_bytes(pack("ready"))

    def begin(key: int) -> None:
        pipe.send_bytes(pack("begin", ticket=key))

    def begin_after_urgent(key: int) -> None:
        """Between the images of a batch, those that somebody waits for are let through."""
        while (urgent := inbox.take_urgent(stages.has_classifier)) is not None:
            pipe.send_bytes(pack_results(stages.run(urgent[0], [urgent[1]], begin=begin)))
        begin(key)

    while True:
        number, spec, tasks = inbox.take(stages.images_at_once)
        if not stages.has_classifier(spec):
            pipe.send_bytes(pack("loading", number=number))
            try:
                stages.classifier(spec)
            except ModelError as error:
                inbox.drop(number)
                pipe.send_bytes(pack("unusable", number=number, code=error.code, detail=error.detail))
                continue
            pipe.send_bytes(pack("loaded", number=number))
        pipe.send_bytes(pack_results(stages.run(spec, tasks, begin=begin_after_urgent)))
        resident = resident_bytes()
        if resident is not None and resident > config.max_rss_bytes:
            pipe.send_bytes(pack("retire", resident=resident))
            return


def main(arguments: list[str]) -> None:
    """Entry of the engine process: the descriptor of its pipe, and its configuration as JSON."""
    live(arguments, EngineConfig, serve)


if __name__ == "__main__":
    main(sys.argv[1:])
