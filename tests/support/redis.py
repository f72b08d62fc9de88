"""A private Redis server for tests: on a free port of loopback, without persistence."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

START_S = 20


@contextmanager
def private_redis(program: str) -> Iterator[str]:
    """Start a server; gives its URL, and leaves nothing behind."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mien-redis-") as folder:
        server = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait(port, server)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def free_port() -> int:
    """A TCP port of loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    with redis.Redis(port=port) as client:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise RuntimeError(f"redis-server ended with code {server.returncode}")
            try:
                client.ping()
            except redis.ConnectionError:
                time.sleep(0.05)
            else:
                return
    raise RuntimeError("redis-server does not answer")
