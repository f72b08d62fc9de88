"""The doorbell never makes a request wait, whatever the broker does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mien.queue import EXPAND
from tests.support.web import make_app, make_settings, parts_of
from web.doorbell import Doorbell


@pytest.fixture
def silent_broker() -> Iterator[str]:
    """Something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_a_submission_does_not_wait_for_a_silent_broker(tmp_path: Path, silent_broker: str) -> None:
    app = make_app(tmp_path, broker_url=silent_broker)
    body = {"source": {"type": "folder", "path": str(tmp_path / "photos")}}
    answer = app.test_client().post("/api/v1/jobs", json=body)
    assert answer.status_code == 202
    # the ring is still on its way when the answer is there
    assert not parts_of(app).doorbell.wait_until_idle(0)


def test_rings_end_when_the_broker_is_down(tmp_path: Path) -> None:
    bell = Doorbell(make_settings(tmp_path))
    bell.ring(EXPAND)
    assert bell.wait_until_idle(10)


def test_many_wishes_are_few_rings_and_one_thread(tmp_path: Path, silent_broker: str) -> None:
    bell = Doorbell(make_settings(tmp_path, broker_url=silent_broker))
    before = threading.active_count()
    for _ in range(100):
        bell.ring(EXPAND)
    assert threading.active_count() <= before + 1


def test_the_broker_may_move(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, broker_url="")
    bell = Doorbell(settings)
    first = bell.celery()
    assert bell.celery() is first
    (settings.data_dir / "broker.url").write_text("redis://127.0.0.1:2/0\n")
    assert bell.celery() is not first
    assert bell.celery().conf.broker_url == "redis://127.0.0.1:2/0"
