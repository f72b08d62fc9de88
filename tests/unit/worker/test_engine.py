"""What an engine takes up next."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from tests.support.tiny_model import make_tiny_model
from tests.unit.worker.test_stages import make_spec
from worker.engine import Inbox
from worker.messages import EngineSpec, Handed, ImageTask, pack_images, pack_spec


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Connection, Inbox]]:
    left = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda _: left.set())  # what an inbox does when its pipe closes
    ours, theirs = socket.socketpair()
    supervisor = Connection(ours.detach())
    yield supervisor, Inbox(Connection(theirs.detach()))
    supervisor.close()
    assert left.wait(10)


@pytest.fixture
def spec(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    return make_spec(make_tiny_model(tmp_path_factory.mktemp("model") / "model"))


def send(pipe: Connection, ticket: int, number: int, *, first: bool = False) -> None:
    (message,) = pack_images([Handed(ticket, number, ImageTask(ticket, b"/", b"a.png"), first)])
    pipe.send_bytes(message)


def test_as_many_images_as_their_model_takes_at_once(pipe: tuple[Connection, Inbox], spec: EngineSpec) -> None:
    supervisor, inbox = pipe
    slow = make_slow(spec)
    supervisor.send_bytes(pack_spec(0, spec))
    supervisor.send_bytes(pack_spec(1, slow))
    for ticket, number in enumerate([0, 0, 1, 0, 1, 1, 0]):
        send(supervisor, ticket, number)
    send(supervisor, 99, 1, first=True)
    while len(inbox._waiting) < 8:
        time.sleep(0.01)
    taken = []
    for _ in range(5):
        number, _, tasks = inbox.take(lambda of: 2 if of == slow else 3)
        taken.append((number, [task.key for task in tasks]))
    assert taken == [(1, [99]), (0, [0, 1, 3]), (1, [2, 4]), (1, [5]), (0, [6])]


def make_slow(spec: EngineSpec) -> EngineSpec:
    return EngineSpec(**{**vars(spec), "precision": "int8"})
