"""A few processes that decode pictures for the front end, which decodes nothing itself: mien/picture_process.py.

Each makes one picture at a time. One that does not answer in time is ended, and one that dies is replaced: the file
that did it gets no picture, and nobody else is harmed. They are started when the first picture is asked for.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import select
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mien.errors import ImageError, UnavailableError

log = logging.getLogger(__name__)

PROCESSES = 2
ANSWER_S = 20.0
WAIT_S = 15.0
"""How long a request waits for a process to be free."""
RENEW_AFTER = 2000
BLOCK = 1 << 20


@dataclass(frozen=True)
class Picture:
    """A JPEG, and the size in pixels of the upright image it was made from."""

    data: bytes
    width: int
    height: int


class PicturePool:
    """Safe to share between threads; start none before a fork."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(None)

    def render(self, data: bytes, wanted: dict[str, Any]) -> Picture:
        """A picture of an image file; ``wanted`` as :func:`mien.picture_process.render` takes it.

        Raises:
            ImageError: the file gives no picture.
            UnavailableError: ``busy``, every process has its hands full.
        """
        try:
            process = self._free.get(timeout=WAIT_S)
        except queue.Empty:
            raise UnavailableError("Too many pictures are on their way; try again in a moment.", code="busy") from None
        try:
            if process is None or process.is_spent:
                if process is not None:
                    process.end()
                process = _Process()
            return process.render(data, wanted)
        except (OSError, EOFError, ValueError) as error:
            if process is not None:
                process.end()
            process = None
            log.warning("a picture could not be made, its process ended: %s", error)
            raise ImageError(
                "decoder_crashed", "This file cannot be shown: decoding it failed or took too long."
            ) from None
        finally:
            self._free.put(process)

    def close(self) -> None:
        """End the processes that are idle."""
        with suppress(queue.Empty):
            while True:
                if process := self._free.get_nowait():
                    process.end()


class _Process:
    def __init__(self) -> None:
        # none of the front end's environment: it may hold keys and addresses
        environment = {
            "PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from mien.picture_process import main; main()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0,
        )  # fmt: skip
        self._made = 0

    @property
    def is_spent(self) -> bool:
        return self._made >= RENEW_AFTER or self._process.poll() is not None

    def render(self, data: bytes, wanted: dict[str, Any]) -> Picture:
        deadline = time.monotonic() + ANSWER_S
        self._made += 1
        self._write(json.dumps({**wanted, "bytes": len(data)}).encode() + b"\n", deadline)
        self._write(data, deadline)
        head, _, rest = self._read_line(deadline).partition(b"\n")
        answer = json.loads(head)
        picture = rest + self._read(answer["bytes"] - len(rest), deadline)
        if "code" in answer:
            raise ImageError(answer["code"], answer["detail"])
        return Picture(picture, answer["width"], answer["height"])

    def end(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait(10)

    def _write(self, data: bytes, deadline: float) -> None:
        descriptor = self._process.stdin.fileno()  # type: ignore[union-attr]
        os.set_blocking(descriptor, False)
        view = memoryview(data)
        while view:
            self._wait([], [descriptor], deadline)
            view = view[os.write(descriptor, view[:BLOCK]) :]

    def _read_line(self, deadline: float) -> bytes:
        found = b""
        while b"\n" not in found:
            found += self._some(deadline)
        return found

    def _read(self, count: int, deadline: float) -> bytes:
        parts = []
        while count > 0:
            parts.append(self._some(deadline, count))
            count -= len(parts[-1])
        return b"".join(parts)

    def _some(self, deadline: float, most: int = BLOCK) -> bytes:
        descriptor = self._process.stdout.fileno()  # type: ignore[union-attr]
        self._wait([descriptor], [], deadline)
        data = os.read(descriptor, min(most, BLOCK))
        if not data:
            raise EOFError("the process has died")
        return data

    def _wait(self, readable: list[int], writable: list[int], deadline: float) -> None:
        poller = select.poll()
        for descriptor in readable:
            poller.register(descriptor, select.POLLIN)
        for descriptor in writable:
            poller.register(descriptor, select.POLLOUT)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise OSError(f"no answer within {ANSWER_S:g} s")
