"""Webhooks and the states of workers over HTTP; what the answers look like is held against the document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from mien.heartbeat import beat
from mien.keys import create_key
from mien.ledger.events import EVENTS
from tests.support.ledger import expanded_job, work_off
from tests.support.web import make_app, parts_of

URL = "https://93.184.216.34/hook"


@pytest.fixture
def hook(client: FlaskClient) -> dict[str, Any]:
    answer = client.post("/api/v1/webhooks", json={"url": URL})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"].endswith(answer.get_json()["id"])
    return dict(answer.get_json())


def test_a_webhook_from_its_making_to_its_end(client: FlaskClient, hook: dict[str, Any]) -> None:
    assert hook["secret"].startswith("whsec_")
    assert hook["events"] == ["job.completed", "job.cancelled", "job.failed"] == list(EVENTS)
    path = f"/api/v1/webhooks/{hook['id']}"
    assert "secret" not in client.get(path).get_json()
    assert [item["id"] for item in client.get("/api/v1/webhooks").get_json()["items"]] == [hook["id"]]
    changed = client.patch(path, json={"events": ["job.failed"], "enabled": False}).get_json()
    assert (changed["events"], changed["enabled"], changed["disabled_reason"]) == (
        ["job.failed"], False, "Disabled on request.",
    )  # fmt: skip
    assert client.patch(path, json={"enabled": True}).get_json()["enabled"]
    new = client.post(f"{path}/secret", json={}).get_json()
    assert new["secret"] != hook["secret"]
    assert new["old_secret_until"] is not None
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == client.delete(path).status_code == 404


def test_deliveries_are_listed_page_by_page_and_sent_again(
    client: FlaskClient, db: Database, hook: dict[str, Any], tmp_path: Path
) -> None:
    for number in range(3):
        expanded_job(db, tmp_path / str(number), 1)
    work_off(db)
    path = f"/api/v1/webhooks/{hook['id']}/deliveries"
    page = client.get(path, query_string={"limit": 2}).get_json()
    assert page["has_more"]
    rest = client.get(path, query_string={"limit": 2, "after": page["next"]}).get_json()
    found = [*page["items"], *rest["items"]]
    assert len({item["id"] for item in found}) == len({item["job"] for item in found}) == 3
    assert {(item["state"], item["attempts"]) for item in found} == {("pending", 0)}
    assert client.post(f"{path}/{found[0]['id']}/send").status_code == 202
    assert client.post(f"{path}/msg_0/send").get_json()["code"] == "unknown_delivery"
    client.patch(f"/api/v1/webhooks/{hook['id']}", json={"enabled": False})
    assert {item["state"] for item in client.get(path).get_json()["items"]} == {"held"}
    assert client.post(f"{path}/{found[0]['id']}/send").get_json()["code"] == "webhook_disabled"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"url": URL, "events": []}, 400, "invalid_request"),
        ({"url": URL, "events": ["job.started"]}, 400, "invalid_request"),
        ({"url": URL, "secret": "whsec_c2hvcnQ="}, 422, "bad_webhook_secret"),
        ({"url": "ftp://example.org"}, 422, "bad_webhook_url"),
        ({"url": "https://user:word@93.184.216.34/"}, 422, "bad_webhook_url"),
        ({"url": "https://127.0.0.1/"}, 422, "webhook_address_refused"),
        ({"url": "http://93.184.216.34/"}, 422, "webhook_address_refused"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, 422, "webhook_address_refused"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    client: FlaskClient, body: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post("/api/v1/webhooks", json=body)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_so_many_webhooks_and_no_more(tmp_path: Path) -> None:
    client = make_app(tmp_path, webhooks_per_owner=1).test_client()
    assert client.post("/api/v1/webhooks", json={"url": URL}).status_code == 201
    assert client.post("/api/v1/webhooks", json={"url": URL}).get_json()["code"] == "too_many_webhooks"


def test_who_may_do_what(app: Flask, client: FlaskClient, db: Database, hook: dict[str, Any]) -> None:
    beat(
        db, name="w@h.1", host="h", pid=1, device="cpu", precisions=["fp32"], models=[], engines=1, images_per_s=None,
        version="0",
    )  # fmt: skip
    keys = {scope: create_key(db, scope, scope=scope)[1] for scope in ("read", "submit", "admin")}

    def header(scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys[scope]}"}

    assert client.post("/api/v1/webhooks", json={"url": URL}, headers=header("read")).status_code == 403
    mine = client.post("/api/v1/webhooks", json={"url": URL}, headers=header("submit"))
    assert mine.status_code == 201
    assert client.get(f"/api/v1/webhooks/{hook['id']}", headers=header("submit")).status_code == 404  # another's
    state = "/api/v1/workers/w%40h.1/state"
    assert client.put(state, json={"state": "paused"}, headers=header("submit")).status_code == 403
    told = client.put(state, json={"state": "paused"}, headers=header("admin")).get_json()
    assert (told["wanted"], told["state"]) == ("paused", "active")  # it has not heard of it yet
    nobody = client.put("/api/v1/workers/nobody/state", json={"state": "drained"}, headers=header("admin"))
    assert (nobody.status_code, nobody.get_json()["code"]) == (404, "unknown_worker")
    assert client.put(state, json={"state": "dead"}, headers=header("admin")).status_code == 400


def test_readiness_is_of_the_default_model(app: Flask, client: FlaskClient, db: Database) -> None:
    revision = parts_of(app).store.get("tiny").revision

    def worker(models: list[str], precisions: list[str], state: str = "active") -> str:
        beat(
            db, name="w", host="h", pid=1, device="cpu", precisions=precisions, models=models, engines=1,
            images_per_s=None, version="0", state=state,
        )  # fmt: skip
        return str(client.get("/readyz").get_json()["checks"]["worker"]["detail"])

    assert "none was seen" in client.get("/readyz").get_json()["checks"]["worker"]["detail"]
    assert "none of 1 has the default model tiny" in worker(["b" * 64], ["fp32"])
    assert "none of 1 has the default model tiny" in worker([revision], ["bf16"])
    assert "paused or drained" in worker([revision], ["fp32"], "drained")
    assert worker([revision], ["fp32"]) == "1 live"
