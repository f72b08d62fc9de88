"""On a running system: no key in any log, address or answer; the protective headers on every answer; limits on
request lines, headers and bodies, and on how long a silent client holds a thread."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.end_to_end.system import Mien, grey

pytestmark = pytest.mark.long

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def api(mien: Mien, path: str) -> str:
    return f"{mien.url()}{path}"


def key_of(mien: Mien) -> dict[str, str]:
    return {"Authorization": f"Bearer {mien.key()}"}


def test_no_secret_stands_in_any_log(mien: Mien, photos: Path) -> None:
    wrong = f"mien_{secrets.token_urlsafe(32)}"
    grey(photos / "a.png", 90)
    session = requests.Session()
    signed_in = session.post(api(mien, "/sign-in"), data={"key": mien.key()}, allow_redirects=False, timeout=30)
    assert signed_in.status_code == 303
    cookie = signed_in.cookies["mien"]
    assert session.get(api(mien, "/api/v1/jobs"), timeout=30).status_code == 200
    requests.post(api(mien, "/sign-in"), data={"key": wrong}, timeout=30)
    for headers in ({"Authorization": f"Bearer {wrong}"}, {"Authorization": wrong}, {"Cookie": f"mien={wrong}"}):
        requests.get(api(mien, "/api/v1/jobs"), headers=headers, timeout=30)
    job = mien.job_of(photos)
    mien.wait_for(lambda: mien.counts(job)["pending"] == 0 and mien.counts(job)["total"], "the job is done")
    requests.get(api(mien, f"/api/v1/jobs/{job}/results.csv"), headers=key_of(mien), timeout=30)
    requests.get(api(mien, "/api/v1/nothing"), headers=key_of(mien), timeout=30)
    requests.post(api(mien, "/api/v1/jobs"), data=b"{broken", headers=key_of(mien), timeout=30)
    logs = {log: log.read_bytes() for log in mien.files.logs.rglob("*") if log.is_file()}
    assert len(logs) >= 3
    hidden = {"key": mien.key(), "wrong key": wrong, "cookie": cookie}
    hidden |= {"signer": (mien.data / "session.key").read_bytes().hex()} if (mien.data / "session.key").exists() else {}
    for log, text in logs.items():
        for what, secret in hidden.items():
            assert secret.encode() not in text, f"the {what} stands in {log.name}"


def test_no_secret_stands_in_the_database(mien: Mien) -> None:
    requests.get(api(mien, "/api/v1/jobs"), headers=key_of(mien), timeout=30)
    for file in mien.data.glob("mien.sqlite3*"):
        assert mien.key().encode() not in file.read_bytes(), file.name


def test_every_answer_has_the_headers_also_those_of_errors(mien: Mien) -> None:
    for method, path in (
        ("GET", "/"), ("GET", "/healthz"), ("GET", "/api/v1/jobs"), ("GET", "/nowhere"), ("GET", "/openapi.json"),
        ("POST", "/api/v1/jobs"), ("DELETE", "/api/v1/jobs/0"), ("PATCH", "/api/v1/jobs"), ("OPTIONS", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs?after=x"), ("HEAD", "/healthz"),
    ):  # fmt: skip
        answer = requests.request(method, api(mien, path), headers=key_of(mien), timeout=30)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (method, path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["Cache-Control"] == "no-store", (method, path)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", {400, 414}),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 9000 + b"\r\n\r\n", {400, 431}),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", {400, 431}),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", {400, 200}),
        (b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n"
         b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + b"k=" + b"z" * 1_999_998, {413}),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
         b"0\r\n\r\n", {400, 200}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50 + b"\r\n\r\n", {400}),
    ],
)  # fmt: skip
def test_requests_beyond_the_limits_are_refused(mien: Mien, sent: bytes, statuses: set[int]) -> None:
    parts = urlsplit(mien.url())
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as connection:
        try:
            connection.sendall(sent)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
        except (ConnectionError, http.client.BadStatusLine):
            return  # hung up on: refused as well
        assert answer.status in statuses
    assert mien.answers()


def test_silent_clients_take_no_thread_from_others(mien: Mien) -> None:
    parts = urlsplit(mien.url())
    quiet = [socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) for _ in range(60)]
    try:
        for number, connection in enumerate(quiet):
            if number % 2:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")  # and never the rest
        began = time.monotonic()
        assert requests.get(api(mien, "/healthz"), timeout=30).status_code == 200
        assert time.monotonic() - began < 20
    finally:
        for connection in quiet:
            connection.close()


def test_a_request_that_comes_in_pieces_is_answered(mien: Mien) -> None:
    parts = urlsplit(mien.url())
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as connection:
        for round_ in range(2):  # the second on the same connection
            for piece in (b"GET /hea", b"lthz HTTP/1.1\r\nHo", b"st: localhost\r\n\r", b"\n"):
                connection.sendall(piece)
                time.sleep(0.05)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200, round_
            answer.read()


def test_two_requests_at_once_are_two_answers(mien: Mien) -> None:
    parts = urlsplit(mien.url())
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        said = b""
        while said.count(b"HTTP/1.1 200") < 2:
            more = connection.recv(4096)
            assert more, said
            said += more


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nX: y", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 8000])
def test_headers_that_do_not_end_are_given_up(mien: Mien, sent: bytes) -> None:
    parts = urlsplit(mien.url())
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):  # closed with what was sent unread
            assert connection.recv(100)[9:12] in (b"", b"431", b"400")
