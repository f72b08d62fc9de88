"""Waiting for news never takes the last threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from mien.jobs import request_cancel
from tests.support.ledger import expanded_job, ok, work_off
from tests.support.web import parts_of
from web.services import Waiting

LONG = "?wait=30"


def in_background(app: Flask, path: str, **sent: object) -> tuple[threading.Thread, list[int]]:
    """Ask in a thread of its own; the list gets the status of the answer."""
    answers: list[int] = []

    def ask() -> None:
        answers.append(app.test_client().get(path, **sent).status_code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, answers


def test_places_are_half_the_threads() -> None:
    waiting = Waiting(4)
    with waiting.place() as first, waiting.place() as second, waiting.place() as third:
        assert (first, second, third) == (True, True, False)
    with waiting.place() as again:
        assert again


def test_a_change_ends_the_wait(app: Flask, client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 4)
    tag = client.get(f"/api/v1/jobs/{job}").headers["ETag"]
    thread, answers = in_background(app, f"/api/v1/jobs/{job}{LONG}", headers={"If-None-Match": tag})
    time.sleep(0.3)
    assert thread.is_alive()
    request_cancel(db, "local", job)
    thread.join(10)
    assert answers == [200]


def test_without_a_tag_the_end_ends_it(app: Flask, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 8)
    thread, answers = in_background(app, f"/api/v1/jobs/{job}{LONG}")
    work_off(db, ok, limit=1)
    time.sleep(0.3)
    assert thread.is_alive()
    work_off(db, ok)
    thread.join(10)
    assert answers == [200]


def test_nothing_new_is_304_after_the_wait(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 4)
    tag = client.get(f"/api/v1/jobs/{job}").headers["ETag"]
    began = time.monotonic()
    answer = client.get(f"/api/v1/jobs/{job}?wait=0.5", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.headers["ETag"]) == (304, tag)
    assert time.monotonic() - began >= 0.5


def test_when_half_the_threads_wait_others_are_answered_at_once(
    app: Flask, client: FlaskClient, db: Database, photos: Path
) -> None:
    job = expanded_job(db, photos, 4)
    parts = parts_of(app)
    parts.waiting = Waiting(2)
    thread, _ = in_background(app, f"/api/v1/jobs/{job}{LONG}")
    time.sleep(0.3)
    began = time.monotonic()
    assert client.get(f"/api/v1/jobs/{job}{LONG}").json["status"] == "running"
    assert time.monotonic() - began < 10
    assert thread.is_alive()
    parts.is_stopping = lambda: True  # a server that drains lets the others go too
    thread.join(10)
    assert not thread.is_alive()


def test_an_ended_job_is_answered_at_once(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 1)
    work_off(db)
    assert client.get(f"/api/v1/jobs/{job}{LONG}").json["status"] == "completed"
