"""Every error is a problem with a stable code, and never a traceback."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.web import make_app, parts_of

FOLDER = {"source": {"type": "folder", "path": "/nowhere"}}


def problem_of(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    problem: dict[str, Any] = json.loads(answer.data)
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert problem["detail"] and problem["title"]
    assert "Traceback" not in answer.text
    return problem


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code", "field"),
    [
        ("GET", "/nowhere", {}, 404, "not_found", None),
        ("GET", "/api/v1/nowhere", {}, 404, "not_found", None),
        ("GET", "/api/v1/jobs/0123", {}, 404, "unknown_job", None),
        ("GET", "/api/v1/jobs/0123/results.csv", {}, 404, "unknown_job", None),
        ("POST", "/api/v1/jobs/0123/cancel", {}, 404, "unknown_job", None),
        ("DELETE", "/api/v1/jobs/0123", {}, 404, "unknown_job", None),
        ("PUT", "/api/v1/jobs", {}, 405, "method_not_allowed", None),
        ("POST", "/healthz", {}, 405, "method_not_allowed", None),
        ("POST", "/api/v1/jobs", {"data": "{}"}, 415, "unsupported_media_type", None),
        ("POST", "/api/v1/jobs", {"data": "{}", "content_type": "text/plain"}, 415, "unsupported_media_type", None),
        ("POST", "/api/v1/jobs", {"data": "", "content_type": "application/json"}, 400, "bad_json", None),
        ("POST", "/api/v1/jobs", {"data": "{", "content_type": "application/json"}, 400, "bad_json", None),
        ("POST", "/api/v1/jobs", {"data": b"\xff", "content_type": "application/json"}, 400, "bad_json", None),
        ("POST", "/api/v1/jobs", {"json": []}, 400, "invalid_request", None),
        ("POST", "/api/v1/jobs", {"data": "null", "content_type": "application/json"}, 400, "invalid_request", None),
        ("POST", "/api/v1/jobs", {"json": {}}, 400, "invalid_request", "source"),
        ("POST", "/api/v1/jobs", {"json": FOLDER | {"modle": "x"}}, 400, "invalid_request", "modle"),
        ("POST", "/api/v1/jobs", {"json": FOLDER | {"options": {"face": 1}}}, 400, "invalid_request", "options.face"),
        ("POST", "/api/v1/jobs", {"json": {"source": {"type": "folder"}}}, 400, "invalid_request", "source.path"),
        ("POST", "/api/v1/jobs", {"json": {"source": {"type": "zip"}}}, 400, "invalid_request", "source.type"),
        ("POST", "/api/v1/jobs", {"json": FOLDER}, 422, "source_outside_roots", "source.path"),
        ("POST", "/api/v1/jobs?x=1", {"json": FOLDER}, 400, "invalid_request", "x"),
        (
            "POST", "/api/v1/jobs", {"json": FOLDER, "headers": {"Idempotency-Key": "a" * 256}},
            400, "invalid_request", "Idempotency-Key",
        ),
        (
            "POST", "/api/v1/jobs", {"json": FOLDER, "headers": {"Idempotency-Key": "a b"}},
            400, "invalid_request", "Idempotency-Key",
        ),
        ("POST", "/api/v1/jobs", {"json": FOLDER | {"metadata": {"x": "y" * (1 << 20)}}}, 413, "too_large", None),
        ("GET", "/api/v1/jobs?limit=0", {}, 400, "invalid_request", "limit"),
        ("GET", "/api/v1/jobs?limit=1001", {}, 400, "invalid_request", "limit"),
        ("GET", "/api/v1/jobs?limit=ten", {}, 400, "invalid_request", "limit"),
        ("GET", "/api/v1/jobs?limit=5&limit=6", {}, 400, "invalid_request", "limit"),
        ("GET", "/api/v1/jobs?status=done", {}, 400, "invalid_request", "status"),
        ("GET", "/api/v1/jobs?stat=running", {}, 400, "invalid_request", "stat"),
        ("GET", "/api/v1/jobs?after=garbage", {}, 400, "bad_cursor", "after"),
        ("GET", "/api/v1/jobs?after=%00", {}, 400, "invalid_request", "after"),
        ("GET", "/api/v1/jobs/0123?wait=31", {}, 400, "invalid_request", "wait"),
        ("GET", "/api/v1/jobs/0123?wait=nan", {}, 400, "invalid_request", "wait"),
        ("GET", "/api/v1/jobs/0123/results?min_confidence=2", {}, 400, "invalid_request", "min_confidence"),
        ("GET", "/api/v1/jobs/0123/results?min_confidence=0.9&max_confidence=0.1", {}, 400, "invalid_request", None),
        ("GET", "/api/v1/jobs/0123/results?label=a&emotion=b", {}, 400, "invalid_request", None),
        ("GET", "/api/v1/jobs/0123/results.csv?spreadsheet=maybe", {}, 400, "invalid_request", "spreadsheet"),
    ],
)  # fmt: skip
def test_errors_are_problems(
    client: FlaskClient, *, method: str, path: str, sent: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    problem = problem_of(client.open(path, method=method, **sent), status, code)
    assert problem.get("field") == field


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ('{"x": NaN}', "NaN"),
        ('{"x": -Infinity}', "Infinity"),
        ('{"x": 1e999}', "too large"),
        ('{"x": "\\u0000"}', "NUL"),
        ('{"\\u0000": 1}', "NUL"),
        ('{"x": ["\\ud800"]}', "surrogate"),
        ("[" * 100_000, "nested too deeply"),
        ('{"x": ' + "1" * 5000 + "}", "digits"),
    ],
)
def test_json_that_no_database_could_store_is_refused(client: FlaskClient, body: str, word: str) -> None:
    answer = client.post("/api/v1/jobs", data=body, content_type="application/json")
    assert word in problem_of(answer, 400, "bad_json")["detail"]


def test_several_defects_are_all_told(client: FlaskClient) -> None:
    body = {"source": {"type": "folder", "path": ""}, "options": {"detect_size": 1, "min_face": -1}}
    problem = problem_of(client.post("/api/v1/jobs", json=body), 400, "invalid_request")
    assert {item["field"] for item in problem["errors"]} == {
        "source.path",
        "options.detect_size",
        "options.min_face",
    }


def test_a_wrong_method_says_which_are_right(client: FlaskClient) -> None:
    answer = client.put("/api/v1/jobs/0123")
    problem_of(answer, 405, "method_not_allowed")
    assert {"GET", "DELETE"} <= set(answer.headers["Allow"].split(", "))


def test_a_fault_of_ours_is_logged_and_not_shown(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise RuntimeError("the secret of the house")

    app.add_url_rule("/broken", view_func=broken)
    with caplog.at_level(logging.ERROR):
        answer = app.test_client().get("/broken", headers={"X-Request-ID": "trace-me.7"})
    problem = problem_of(answer, 500, "internal_error")
    assert problem["request_id"] == "trace-me.7"
    assert "secret" not in answer.text
    assert "trace-me.7" in caplog.text and "the secret of the house" in caplog.text


def test_a_strange_request_id_is_replaced(client: FlaskClient) -> None:
    given = "x" * 65
    assert client.get("/healthz", headers={"X-Request-ID": given}).headers["X-Request-ID"] != given


def test_a_browser_gets_a_page(client: FlaskClient) -> None:
    answer = client.get("/jobs/0123", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.status_code == 404
    assert answer.mimetype == "text/html"
    assert "unknown_job" in answer.text


def test_the_api_gives_problems_to_browsers_too(client: FlaskClient) -> None:
    problem_of(client.get("/api/v1/jobs/0123", headers={"Accept": "text/html"}), 404, "unknown_job")


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/jobs/0123/results.csv", "/api/v1/workers"])
def test_without_its_database_mien_asks_for_patience(tmp_path: Path, path: str) -> None:
    app = make_app(tmp_path)
    parts_of(app).db.dispose()
    (tmp_path / "data" / "mien.sqlite3").unlink()
    (tmp_path / "data" / "mien.sqlite3").mkdir()  # SQLite cannot open a folder
    answer = app.test_client().get(path)
    problem_of(answer, 503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
