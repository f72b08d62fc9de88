"""Who gets in: by a key, by the local token, by the page's form, and nobody else."""

from __future__ import annotations

import base64
import stat
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from mien.errors import SettingsError
from mien.keys import create_key, list_keys, revoke_key
from mien.local_token import read_or_make_token
from mien.migrate import migrate
from tests.support.web import make_app, make_settings, parts_of
from web.app import create_app
from web.auth import is_default_password
from web.sessions import session_secret

FAR = {"REMOTE_ADDR": "203.0.113.9"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def folder(path: Path) -> dict[str, object]:
    path.mkdir(parents=True, exist_ok=True)
    return {"source": {"type": "folder", "path": str(path)}}


@pytest.fixture
def world(tmp_path: Path) -> Flask:
    """A front end that others can reach, with the keys of Ada and of Bob."""
    settings = make_settings(tmp_path, host="0.0.0.0")  # noqa: S104
    db = Database(settings.database)
    migrate(db)
    for name in ("ada", "bob"):
        create_key(db, name, owner=name, secret=name * 12)
    db.dispose()
    return make_app(tmp_path, host="0.0.0.0")  # noqa: S104


def test_on_loopback_without_keys_mien_is_open(client: FlaskClient, photos: Path) -> None:
    answer = client.post("/api/v1/jobs", json=folder(photos))
    assert answer.status_code == 202


def test_the_first_key_closes_it(client: FlaskClient, db: Database) -> None:
    info, secret = create_key(db, "first")
    assert client.get("/api/v1/jobs").json["code"] == "key_needed"
    assert client.get("/api/v1/jobs", headers=bearer(secret)).status_code == 200
    revoke_key(db, info.id)
    assert client.get("/api/v1/jobs", headers=bearer(secret)).json["code"] == "bad_key"


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic YTpi", "", "Bearer \xe9"])
def test_a_wrong_key_is_refused_even_while_open(client: FlaskClient, header: str) -> None:
    answer = client.get("/api/v1/jobs", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_open_means_open_to_this_machine_only(client: FlaskClient) -> None:
    assert client.get("/api/v1/jobs", environ_overrides=FAR).status_code == 401
    assert client.get("/api/v1/jobs", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 401
    assert client.get("/healthz", environ_overrides=FAR).status_code == 200


def test_the_local_token_opens_any_folder_and_a_key_does_not(client: FlaskClient, db: Database, tmp_path: Path) -> None:
    _, secret = create_key(db, "first")
    token = read_or_make_token(tmp_path / "data")
    outside = folder(tmp_path / "elsewhere")
    assert client.post("/api/v1/jobs", json=outside, headers=bearer(secret)).json["code"] == "source_outside_roots"
    assert client.post("/api/v1/jobs", json=outside, headers=bearer(token)).status_code == 202


def test_the_local_token_is_worth_nothing_from_afar(client: FlaskClient, world: Flask, tmp_path: Path) -> None:
    token = read_or_make_token(tmp_path / "data")
    assert client.get("/api/v1/jobs", headers=bearer(token), environ_overrides=FAR).status_code == 401
    assert world.test_client().get("/api/v1/jobs", headers=bearer(token)).status_code == 401


def test_beyond_loopback_everything_but_healthz_needs_a_key(world: Flask) -> None:
    client = world.test_client()
    for rule in world.url_map.iter_rules():
        path = rule.rule.replace("<job_id>", "0123").replace("<path:filename>", "tokens.css")
        method = next(name for name in ("GET", "POST", "PUT", "PATCH", "DELETE") if name in rule.methods)
        status = client.open(path, method=method).status_code
        assert status in ((200,) if rule.endpoint in ("health.healthz", "static", "pages.sign_in") else (401,)), path


def test_jobs_of_others_do_not_exist(world: Flask, photos: Path) -> None:
    client = world.test_client()
    ada, bob = bearer("ada" * 12), bearer("bob" * 12)
    job = client.post("/api/v1/jobs", json=folder(photos), headers=ada).json["id"]
    assert client.get(f"/api/v1/jobs/{job}", headers=ada).status_code == 200
    assert [item["id"] for item in client.get("/api/v1/jobs", headers=ada).json["items"]] == [job]
    assert client.get("/api/v1/jobs", headers=bob).json["items"] == []
    for path in ("", "/results", "/results.csv", "/results.jsonl", "/errors.csv", "/images.csv", "/summary",
                 "/provenance", "/cite"):  # fmt: skip
        assert client.get(f"/api/v1/jobs/{job}{path}", headers=bob).json["code"] == "unknown_job", path
    for path in ("/cancel", "/retry"):
        assert client.post(f"/api/v1/jobs/{job}{path}", headers=bob).json["code"] == "unknown_job"
    assert client.delete(f"/api/v1/jobs/{job}", headers=bob).json["code"] == "unknown_job"
    assert client.get(f"/api/v1/jobs/{job}", headers=ada).json["status"] == "queued"


def test_one_key_of_two_owners_is_two_keys(world: Flask, photos: Path) -> None:
    client = world.test_client()
    ids = {
        client.post("/api/v1/jobs", json=folder(photos), headers=bearer(name * 12) | {"Idempotency-Key": "same"}).json[
            "id"
        ]
        for name in ("ada", "bob")
    }
    assert len(ids) == 2


def test_mien_does_not_serve_the_world_without_a_key(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, host="0.0.0.0")  # noqa: S104
    with pytest.raises(SettingsError, match="mien migrate"):
        create_app(settings)  # not even a database yet
    migrate(Database(settings.database))
    with pytest.raises(SettingsError, match="MIEN_BOOTSTRAP_KEY"):
        create_app(settings)


@pytest.mark.parametrize(
    ("url", "weak"),
    [
        ("postgresql://mien:mien@db/mien", True),
        ("postgresql://postgres:postgres@db/mien", True),
        ("postgresql://mien:change-me-please@db/mien", True),
        ("redis://:password1@redis/0", True),
        ("redis://:short@redis/0", True),
        ("postgresql://mien:9f86d081884c7d65@db/mien", False),
        ("postgresql:///mien?host=/run/postgresql", False),
        ("redis://redis:6379/0", False),
        ("", False),
    ],
)
def test_passwords_that_are_tried_first(url: str, weak: bool) -> None:
    assert is_default_password(url) == weak


def test_mien_does_not_serve_the_world_with_a_default_password(world: Flask, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MIEN_BROKER_URL") as caught:
        create_app(make_settings(tmp_path, host="0.0.0.0", broker_url="redis://:redis@127.0.0.1:1/0"))  # noqa: S104
    assert ":redis@" not in caught.value.detail


def test_with_the_database_away_nobody_gets_in(tmp_path: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    client = create_app(make_settings(tmp_path, host="0.0.0.0", database_url=url)).test_client()  # noqa: S104
    assert client.get("/api/v1/jobs").status_code == 401
    assert client.get("/api/v1/jobs", headers=bearer("x")).status_code == 503
    assert client.get("/healthz").status_code == 200


def test_signing_in_by_the_page(world: Flask, photos: Path) -> None:
    client = world.test_client()
    html = {"Accept": "text/html"}
    away = client.get("/jobs/0123?x=1", headers=html)
    assert (away.status_code, away.headers["Location"]) == (303, "/sign-in?next=/jobs/0123?x%3D1")
    refused = client.post("/sign-in", data={"key": "wrong", "next": "/"})
    assert refused.status_code == 401 and "Set-Cookie" not in refused.headers
    signed_in = client.post("/sign-in", data={"key": "ada" * 12, "next": "/jobs/0123?x=1"})
    assert (signed_in.status_code, signed_in.headers["Location"]) == (303, "/jobs/0123?x=1")
    cookie = signed_in.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie
    assert client.get("/", headers=html).status_code == 200
    assert client.get("/api/v1/jobs").status_code == 200
    assert "Sign out" in client.get("/", headers=html).text
    client.post("/sign-out")
    assert client.get("/api/v1/jobs").status_code == 401


def test_a_revoked_key_ends_the_session(client: FlaskClient, db: Database) -> None:
    info, secret = create_key(db, "first")
    client.post("/sign-in", data={"key": secret})
    assert client.get("/api/v1/jobs").status_code == 200
    create_key(db, "second")
    revoke_key(db, info.id)
    assert client.get("/api/v1/jobs").status_code == 401


def test_a_cookie_holds_no_key_and_does_not_last(world: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.test_client()
    cookie = client.post("/sign-in", data={"key": "ada" * 12}).headers["Set-Cookie"]
    payload = cookie.partition("=")[2].split(".")[0]
    assert b"ada" not in base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    assert client.get("/api/v1/jobs").status_code == 200
    later = time.time() + parts_of(world).settings.session_s + 5
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert client.get("/api/v1/jobs").status_code == 401


def test_signing_in_by_the_local_token_ends_with_it(client: FlaskClient, db: Database, tmp_path: Path) -> None:
    create_key(db, "first")
    token = read_or_make_token(tmp_path / "data")
    assert client.post("/sign-in", data={"key": token}).status_code == 303
    assert client.get("/api/v1/jobs").status_code == 200
    assert client.get("/api/v1/jobs", environ_overrides=FAR).status_code == 401
    (tmp_path / "data" / "local.token").unlink()
    assert client.get("/api/v1/jobs").status_code == 401


def test_signing_in_begins_a_session_of_its_own(world: Flask) -> None:
    client = world.test_client()
    client.post("/sign-in", data={"key": "ada" * 12})
    client.post("/sign-in", data={"key": "bob" * 12})
    assert [key["name"] for key in map(asdict, list_keys(parts_of(world).db)) if key["last_used_at"]] == ["ada", "bob"]
    client.post("/sign-out")
    assert client.get("/api/v1/jobs").status_code == 401


def test_over_https_the_cookie_is_secure(world: Flask) -> None:
    answer = world.test_client().post("/sign-in", data={"key": "ada" * 12}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["Set-Cookie"]
    assert answer.headers["Set-Cookie"].startswith("__Host-mien=")
    assert "Path=/" in answer.headers["Set-Cookie"] and "Domain" not in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/\r\nX: y", "x"])
def test_signing_in_leads_nowhere_else(world: Flask, target: str) -> None:
    answer = world.test_client().post("/sign-in", data={"key": "ada" * 12, "next": target})
    assert answer.headers["Location"] == "/"


def test_a_forged_cookie_is_nothing(world: Flask, client: FlaskClient) -> None:
    stranger = world.test_client()
    stranger.set_cookie("mien", "eyJrZXkiOiJhZGFhZGEifQ.AAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAA")
    assert stranger.get("/api/v1/jobs").status_code == 401


def test_the_session_secret_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    first = session_secret(tmp_path / "new")
    assert len(first) == 32
    assert session_secret(tmp_path / "new") == first
    assert stat.S_IMODE((tmp_path / "new" / "session.key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["session.key"]
    for weak in (b"short", b"0" * 32, b"secret" * 8):
        (tmp_path / "new" / "session.key").write_bytes(weak)
        with pytest.raises(SettingsError, match="damaged"):
            session_secret(tmp_path / "new")
    (tmp_path / "new" / "session.key").write_bytes(first)
    (tmp_path / "new" / "session.key").chmod(0o644)
    with pytest.raises(SettingsError, match="open to others"):
        session_secret(tmp_path / "new")


def test_keys_stand_in_no_url_and_no_answer(app: Flask, db: Database) -> None:
    _, secret = create_key(db, "first")
    client = app.test_client()
    client.post("/sign-in", data={"key": secret})
    page = client.get("/", headers={"Accept": "text/html"})
    assert secret not in page.text and secret not in str(page.headers)
    assert parts_of(app).settings.bootstrap_key == ""


def test_a_reader_may_sign_out(client: FlaskClient, db: Database) -> None:
    _, secret = create_key(db, "reader", scope="read")
    client.post("/sign-in", data={"key": secret})
    assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
    assert client.post("/", data={"path": "/"}, headers={"Accept": "text/html"}).status_code == 403
    assert client.post("/sign-out").status_code == 303
    assert client.get("/", headers={"Accept": "text/html"}).status_code == 303
