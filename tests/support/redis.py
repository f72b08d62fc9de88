"""A private Redis server for tests: on a free port of loopback, without persistence, stopped and started at will."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import redis

START_S = 20


class Redis:
    """One server at one address."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(program, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(folder)),
        ]
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process."""
        if self._server is None:
            raise RuntimeError("the server does not run")
        return self._server.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._server = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        with redis.Redis(port=self.port) as client:
            while time.monotonic() < deadline:
                if self._server.poll() is not None:
                    raise RuntimeError(f"redis-server ended with code {self._server.returncode}")
                try:
                    client.ping()
                except redis.ConnectionError:
                    time.sleep(0.05)
                else:
                    return
        raise RuntimeError("redis-server does not answer")

    def stop(self) -> None:
        """kill -9: whatever it held is lost."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None


def free_port() -> int:
    """A TCP port of loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
