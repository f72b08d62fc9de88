"""What protects a browser: headers on every answer, the Host check, no cross-site changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.web import make_app
from web.app import static_version
from web.security import host_name

ESCAPED_BY_ITS_RENDERER = "{{ card|safe }}"
"""The one text that a template may trust: `tests/unit/web/test_system_pages.py` feeds its renderer a hostile card."""


def test_every_answer_has_the_headers(app: Flask, client: FlaskClient) -> None:
    for path in (
        "/",
        "/healthz",
        "/api/v1/jobs",
        "/nowhere",
        f"/static/{static_version()}/tokens.css",
        "/openapi.json",
        "/sign-in",
    ):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"], path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        if not path.startswith("/static"):
            assert headers["Cache-Control"] == "no-store", path


def test_pages_need_nothing_that_the_policy_forbids() -> None:
    for template in (Path(__file__).parents[3] / "web" / "templates").glob("*.html"):
        text = template.read_text().replace(ESCAPED_BY_ITS_RENDERER, "")
        for forbidden in ("style=", "onclick", "<style", "javascript:", "http://", "https://", "|safe"):
            assert forbidden not in text, f"{template.name} has {forbidden}"


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.0.0.1:8616", "[::1]:8616", "LOCALHOST:1", "localhost."]
)
def test_loopback_answers_to_its_own_names(client: FlaskClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8616", "[::2]", "[::1", ""])
def test_and_to_no_other(client: FlaskClient, host: str) -> None:
    answer = client.get("/healthz", headers={"Host": host})
    assert (answer.status_code, answer.json["code"]) == (400, "bad_host")


def test_an_operator_may_allow_names(tmp_path: Path) -> None:
    client = make_app(tmp_path, allowed_hosts=("mien.example",)).test_client()
    assert client.get("/healthz", headers={"Host": "Mien.Example:80"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "other.example"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://localhost:9999"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/v1/jobs", "/api/v1/jobs/0123/cancel", "/jobs/0123/delete", "/sign-in"])
def test_no_other_site_changes_anything(client: FlaskClient, path: str, headers: dict[str, str], allowed: bool) -> None:
    answer = client.post(path, headers=headers)
    assert (answer.status_code != 403) == allowed
    if not allowed:
        assert answer.json["code"] == "cross_site"


def test_reading_from_another_site_is_left_to_the_browser(client: FlaskClient) -> None:
    answer = client.get("/api/v1/jobs", headers={"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_host_names() -> None:
    assert host_name("Mien.Example.:80") == "mien.example"
    assert host_name("[::1]") == "::1"
    assert host_name("[bad") == ""
