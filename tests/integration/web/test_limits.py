"""Limits of keys: requests in a minute, unfinished jobs, images and bytes in a day."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from mien.database import Database
from mien.keys import Limits, create_key
from mien.ledger.usage import used_today
from mien.receipts import request_delete
from tests.support.ledger import control, make_files, work_off
from tests.support.web import make_app, parts_of
from web.limits import Requests, in_force

Client = Callable[..., tuple[FlaskClient, dict[str, str]]]


@pytest.fixture
def keyed(tmp_path: Path, db: Database) -> Client:
    """A front end with these settings, and the header of a key with these limits."""

    def make(
        limits: Limits | None = None, owner: str = "default", **settings: Any
    ) -> tuple[FlaskClient, dict[str, str]]:
        app = make_app(tmp_path, database_url=db.url.render_as_string(hide_password=False), **settings)
        _, secret = create_key(db, "k", owner=owner, limits=limits or Limits())
        return app.test_client(), {"Authorization": f"Bearer {secret}"}

    return make


def test_requests_in_a_minute(keyed: Client, db: Database) -> None:
    client, key = keyed(requests_per_minute=3)
    answers = [client.get("/api/v1/jobs", headers=key) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    for answer, left in zip(answers, (2, 1, 0, 0, 0), strict=True):
        assert answer.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
        assert re.fullmatch(rf'"requests";r={left};t=[1-6]?\d', answer.headers["RateLimit"])
    assert answers[3].json["code"] == "rate_limited"
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
    _, other = create_key(db, "other")
    assert client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {other}"}).status_code == 200
    _, free = create_key(db, "free", limits=Limits(requests_per_minute=0))
    answer = client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {free}"})
    assert (answer.status_code, "RateLimit" in answer.headers) == (200, False)
    assert client.get("/healthz").status_code == 200


def test_whoever_needs_no_key_has_no_limits(tmp_path: Path, photos: Path) -> None:
    client = make_app(tmp_path, requests_per_minute=1, concurrent_jobs=1).test_client()
    body = {"source": {"type": "folder", "path": str(photos)}}
    assert {client.post("/api/v1/jobs", json=body).status_code for _ in range(3)} == {202}


def test_unfinished_jobs(keyed: Client, db: Database, photos: Path) -> None:
    client, key = keyed(Limits(concurrent_jobs=2))
    make_files(photos, 4)
    body = {"source": {"type": "folder", "path": str(photos)}}

    def submit(_: int) -> int:
        return client.application.test_client().post("/api/v1/jobs", json=body, headers=key).status_code

    with ThreadPoolExecutor(8) as pool:  # at the same moment, too
        codes = list(pool.map(submit, range(8)))
    assert 1 <= codes.count(202) <= 2 and codes.count(429) == 8 - codes.count(202)
    while submit(0) == 202:
        pass
    refused = client.post("/api/v1/jobs", json=body, headers=key)
    assert (refused.status_code, refused.json["code"]) == (429, "too_many_jobs")
    assert int(refused.headers["Retry-After"]) > 0
    assert len(client.get("/api/v1/jobs", headers=key).json["items"]) == 2
    control(db).expand()
    work_off(db)
    assert submit(0) == 202


def test_images_of_a_day_outlive_their_jobs(keyed: Client, db: Database, photos: Path) -> None:
    client, key = keyed(images_per_day=5)
    make_files(photos, 6)
    body = {"source": {"type": "folder", "path": str(photos)}}
    job = client.post("/api/v1/jobs", json=body, headers=key).json["id"]
    control(db).expand()
    assert used_today(db, "default").images == 6
    refused = client.post("/api/v1/jobs", json=body, headers=key)
    assert (refused.status_code, refused.json["code"]) == (429, "images_quota")
    assert 1 <= int(refused.headers["Retry-After"]) <= 86401
    request_delete(db, "default", job)
    control(db).purge()
    assert client.post("/api/v1/jobs", json=body, headers=key).status_code == 429


def test_bytes_of_a_day_are_refused_before_they_are_read(keyed: Client, db: Database) -> None:
    client, key = keyed(bytes_per_day=1000)
    job = client.post("/api/v1/jobs", json={"source": {"type": "upload"}}, headers=key).json["id"]
    path = f"/api/v1/jobs/{job}/images"
    answer = client.put(f"{path}?path=a.jpg", data=b"x" * 600, content_type="image/jpeg", headers=key)
    assert answer.status_code in (200, 201), answer.text
    assert used_today(db, "default").bytes == 600
    refused = client.put(f"{path}?path=b.jpg", data=b"x" * 600, content_type="image/jpeg", headers=key)
    assert (refused.status_code, refused.json["code"]) == (429, "bytes_quota")
    client.put(f"{path}?path=a.jpg", data=b"x" * 300, content_type="image/jpeg", headers=key)
    assert used_today(db, "default").bytes == 900  # what came, not what is left


def test_own_limits_go_before_those_of_the_settings(keyed: Client) -> None:
    settings = parts_of(keyed(requests_per_minute=5, images_per_day=7)[0].application).settings
    assert in_force(settings, Limits(requests_per_minute=0, bytes_per_day=9)) == Limits(0, 0, 7, 9)


@pytest.mark.redis
def test_front_ends_count_together_by_redis_and_alone_without_it(keyed: Client, redis_url: str) -> None:
    settings = parts_of(keyed()[0].application).settings.model_copy(update={"broker_url": redis_url})
    one, two = Requests(settings), Requests(settings)
    assert [one.take(1, 2).allowed, two.take(1, 2).allowed, one.take(1, 2).allowed] == [True, True, False]
    gone = Requests(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    started = time.monotonic()
    assert [gone.take(1, 2).allowed for _ in range(3)] == [True, True, False]
    assert time.monotonic() - started < 5
