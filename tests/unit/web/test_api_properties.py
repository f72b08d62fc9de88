"""Property-based: whatever JSON, cursor, path, filter or header comes, the answer is one that the API promises, and
never a fault of the server. Every answer is held against the OpenAPI document by the test client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st

from mien.database import Database
from mien.errors import InvalidRequestError
from mien.jobs import get_job
from mien.paging import decode_cursor, encode_cursor
from tests.support.ledger import expanded_job, work_off
from tests.support.web import make_app, parts_of

TEXT = st.text(max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
LISTS = ("jobs/{job}/results", "jobs", "results", "receipts", "jobs/{job}/images", "jobs/{job}/folders")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flask, str]]:
    """One front end for all examples, with a job of six images."""
    folder = tmp_path_factory.mktemp("world")
    app = make_app(folder, predict_timeout_s=0.1)
    parts_of(app).is_stopping = lambda: True
    db: Database = parts_of(app).db
    job = expanded_job(db, folder / "photos" / "a", 6)
    work_off(db)
    yield app, job
    db.dispose()


def fine(client: FlaskClient, method: str, path: str, **sent: Any) -> int:
    """Ask, and give the status, which is no fault of ours."""
    answer = client.open(path, method=method, **sent)
    assert answer.status_code < 500, f"{method} {path} {sent}: {answer.text[:400]}"
    if answer.status_code >= 400:
        assert answer.json["code"] and answer.json["detail"]
        assert "Traceback" not in answer.text
    return answer.status_code


SOURCES = st.fixed_dictionaries(
    {"type": st.sampled_from(("folder", "upload")) | TEXT},
    optional={
        "path": st.sampled_from(("/", "/etc", "/proc/self/root", "relative", "/\0", "//x", "/..")) | TEXT | JSON,
        "recursive": JSON, "include": st.lists(TEXT, max_size=3) | JSON, "exclude": JSON, "more": JSON,
    },
)  # fmt: skip


@given(
    body=st.one_of(
        JSON,
        st.fixed_dictionaries(
            {"source": SOURCES | JSON},
            optional={"model": JSON, "options": JSON, "metadata": JSON, "keep_results": JSON, "keep_images": JSON},
        ),
    )
)
@example(body={"": None})
def test_any_json_is_taken_or_told_what_is_wrong(world: tuple[Flask, str], body: Any) -> None:
    app, _ = world
    status = fine(app.test_client(), "POST", "/api/v1/jobs", data=json.dumps(body), content_type="application/json")
    assert status in (202, 400, 422)


@given(body=st.binary(max_size=400) | st.text(max_size=200).map(lambda text: ('{"source": ' + text).encode()))
@example(b"[" * 100_000)
@example(b'{"a":' * 50_000)
@example(b"1e999999")
@example(b'{"source": {"type": "folder", "path": "\\ud800"}}')
def test_any_bytes_as_json(world: tuple[Flask, str], body: bytes) -> None:
    app, job = world
    for path in ("/api/v1/jobs", f"/api/v1/jobs/{job}/rerun", "/api/v1/deletions"):
        assert fine(app.test_client(), "POST", path, data=body, content_type="application/json") in (400, 404, 422)


@given(
    cursor=TEXT.filter(bool)
    | JSON.map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode())
    | st.tuples(TEXT, st.lists(st.integers(), max_size=4)).map(
        lambda some: base64.urlsafe_b64encode(json.dumps([some[0], *some[1]]).encode()).decode()
    ),
    where=st.sampled_from(LISTS),
)
@example(cursor=encode_cursor("jobs", 2**61), where="jobs")
@example(cursor=encode_cursor("jobs", -1), where="jobs")
@example(cursor="====", where="results")
def test_any_cursor(world: tuple[Flask, str], cursor: str, where: str) -> None:
    app, job = world
    fine(app.test_client(), "GET", f"/api/v1/{where.format(job=job)}", query_string={"after": cursor})


@given(scope=st.text(max_size=20), position=st.lists(st.integers(0, 2**62 - 1), max_size=4))
def test_a_cursor_is_what_it_was_made_of(scope: str, position: list[int]) -> None:
    cursor = encode_cursor(scope, *position)
    assert decode_cursor(cursor, scope, len(position)) == tuple(position)
    with pytest.raises(InvalidRequestError):
        decode_cursor(cursor, scope + "x", len(position))
    with pytest.raises(InvalidRequestError):
        decode_cursor(cursor, scope, len(position) + 1)


PARTS = st.sampled_from(("..", ".", "%2e%2e", "%2F", "%00", "%ff", "jobs", "api", "v1", "static", "a.csv")) | TEXT.map(
    quote
)


@given(parts=st.lists(PARTS, max_size=5), method=st.sampled_from(("GET", "POST", "PUT", "DELETE", "HEAD")))
def test_any_address(world: tuple[Flask, str], parts: list[str], method: str) -> None:
    app, _ = world
    for start in ("/api/v1/jobs/", "/api/v1/", "/jobs/", "/static/", "/"):
        answer = app.test_client().open(start + "/".join(parts), method=method)
        assert answer.status_code < 500 or answer.json["code"] in ("busy", "no_broker", "no_worker")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "root:" not in answer.text


FILTERS = (
    "emotion", "label", "outcome", "min_confidence", "max_confidence", "prefix", "limit", "status", "model",
    "created_after", "finished_before", "metadata.x", "metadata.", "owner", "path", "folder", "columns", "wait", "",
)  # fmt: skip


@given(
    where=st.sampled_from((*LISTS, "jobs/{job}/results.csv", "jobs/{job}/summary", "jobs/{job}", "summary")),
    query=st.dictionaries(st.sampled_from(FILTERS), TEXT | st.integers().map(str) | st.floats().map(str), max_size=4),
)
@example(where="jobs/{job}/results", query={"prefix": "%_\\"})
@example(where="jobs", query={"metadata." + "k" * 300: "v"})
def test_any_filter(world: tuple[Flask, str], where: str, query: dict[str, str]) -> None:
    app, job = world
    fine(app.test_client(), "GET", f"/api/v1/{where.format(job=job)}", query_string=query)


HEADERS = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)


@given(
    headers=st.dictionaries(
        st.sampled_from(
            ("Idempotency-Key", "If-None-Match", "X-Request-ID", "Accept", "Accept-Encoding", "Content-Type", "Cookie",
             "Authorization", "Origin", "Range", "X-Forwarded-Proto")
        ),
        HEADERS,
        max_size=4,
    )
)  # fmt: skip
def test_any_header(world: tuple[Flask, str], headers: dict[str, str]) -> None:
    app, job = world
    client = app.test_client(use_cookies=False)
    fine(client, "GET", f"/api/v1/jobs/{job}", headers=headers)
    fine(client, "POST", "/api/v1/deletions", headers=headers, data=b'{"sha256": "' + b"0" * 64 + b'"}')


def test_the_job_is_still_what_it_was(world: tuple[Flask, str], tmp_path: Path) -> None:
    app, name = world
    job = get_job(parts_of(app).db, "local", name)
    assert (job.status, job.counts["ok"]) == ("completed", 6)
