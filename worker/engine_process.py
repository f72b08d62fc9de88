"""An engine process as its supervisor sees it: started, spoken to, killed, reaped; and the last lines it wrote."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from worker.messages import MAX_MESSAGE_BYTES, unpack

log = logging.getLogger(__name__)

SOCKET_BUFFER = 256 << 10
SEND_TIMEOUT_S = 5
STDERR_TAIL = 4_000
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class EngineProcess:
    """A running engine. ``on_message`` and ``on_end`` are called from its own thread, ``on_end`` once and last.

    A plain subprocess rather than multiprocessing's spawn: the program that runs the supervisor (celery, mien) is not
    imported again in every engine, and what an engine writes before it can start is kept.
    """

    def __init__(
        self,
        module: str,
        config: dict[str, Any],
        on_message: Callable[[EngineProcess, dict[str, Any]], None],
        on_end: Callable[[EngineProcess, int], None],
        *,
        pass_fds: tuple[int, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run ``module`` with ``config`` as JSON; it inherits ``pass_fds``, and ``environment`` on top of ours."""
        self.started_at = time.monotonic()
        self._on_message = on_message
        self._on_end = on_end
        self._tail = b""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            # the supervisor never waits long on an engine that does not read
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), json.dumps(config)],
                pass_fds=(theirs.fileno(), *pass_fds),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**_environment(), **(environment or {})},
            )
            self._pipe = Connection(ours.detach())
        self.pid = self._process.pid
        self._stderr = threading.Thread(target=self._keep_tail, name=f"engine-{self.pid}-stderr", daemon=True)
        self._reader = threading.Thread(target=self._read, name=f"engine-{self.pid}", daemon=True)
        self._stderr.start()
        self._reader.start()

    def send(self, message: bytes) -> bool:
        """Send; an engine that cannot be sent to is killed, and its end follows."""
        try:
            self._pipe.send_bytes(message)
        except OSError:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """SIGKILL; ``on_end`` follows."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def hang_up(self) -> None:
        """Close the pipe's sending side: the engine leaves by itself."""
        with contextlib.suppress(OSError):
            socket.socket(fileno=os.dup(self._pipe.fileno())).shutdown(socket.SHUT_RDWR)

    def join(self, timeout: float) -> bool:
        """Wait for its end; whether it has come."""
        self._reader.join(max(timeout, 0.0))
        return not self._reader.is_alive()

    def last_lines(self) -> str:
        """The end of what the engine wrote to stderr."""
        return self._tail.decode(errors="replace").strip()

    def _read(self) -> None:
        try:
            while True:
                self._on_message(self, unpack(self._pipe.recv_bytes(MAX_MESSAGE_BYTES)))
        except (EOFError, OSError):
            pass  # it ended, or is about to
        except Exception:
            log.exception("Engine %d said something that makes no sense and is ended.", self.pid)
            self.kill()
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:  # it closed its pipe and lives on
            self.kill()
            code = self._process.wait()
        self._stderr.join(timeout=1)
        self._pipe.close()
        self._on_end(self, code)

    def _keep_tail(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        with stream, contextlib.suppress(OSError):
            while block := os.read(stream.fileno(), 4096):
                self._tail = (self._tail + block)[-STDERR_TAIL:]


def _environment() -> dict[str, str]:
    """The engine's environment: this process's module path, one thread for every library, no network for the hub."""
    return {
        **os.environ,
        **dict.fromkeys(_ONE_THREAD, "1"),
        "PYTHONPATH": os.pathsep.join([path for path in sys.path if path] + [str(Path(__file__).parents[1])]),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "2",
    }
