"""The command lines of the processes, the same everywhere: embedded, by hand, and in docker-compose.yml."""

from __future__ import annotations

import sys

from mien.queue import CLASSIFY_QUEUES, CONTROL_QUEUE, PREDICT_QUEUES

CONTROL_THREADS = 4
PREDICT_THREADS = 2
"""Threads of a worker that are left for single images while the others hold chunks."""
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")
"""Workers tell each other nothing: what they do stands in the ledger."""
_CELERY = ("celery", "-A", "worker", "worker", "--pool", "threads", *_QUIET)


def web() -> list[str]:
    """The front end; ``web.serving`` takes address and threads from the settings."""
    return ["gunicorn", "web.app:create_app()", "-c", "python:web.serving", "--no-control-socket"]


def worker(device: str, chunks_in_flight: int) -> list[str]:
    """A worker for one device class, ``cpu`` or ``cuda``."""
    threads = chunks_in_flight + PREDICT_THREADS
    queues = f"{CLASSIFY_QUEUES[device]},{PREDICT_QUEUES[device]}"
    return [*_CELERY, "--concurrency", str(threads), "-Q", queues, "-n", "worker@%h"]


def control() -> list[str]:
    """Control: expansion, sweep, purge."""
    return [*_CELERY, "--concurrency", str(CONTROL_THREADS), "-Q", CONTROL_QUEUE, "-n", "control@%h"]


def in_this_python(command: list[str]) -> list[str]:
    """The same command run by this interpreter, whatever is on the PATH."""
    return [sys.executable, "-m", *command]
