"""Asking over HTTP: results across jobs, filters by metadata and time, sums, folders, models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from mien.heartbeat import beat
from mien.keys import create_key
from tests.support.ledger import bad, control, ok, work_off
from tests.support.web import install_model, parts_of


@pytest.fixture
def two(client: FlaskClient, db: Database, photos: Path) -> list[str]:
    """Two finished jobs of six images in two folders, one of which cannot be read."""
    for name in ("a/1.jpg", "a/2.jpg", "a/b/3.jpg", "c/4.jpg", "c/5.jpg", "6.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"")
    made = []
    for study in ("x", "y"):
        body = {"source": {"type": "folder", "path": str(photos)}, "metadata": {"study": study, "n": 7}}
        made.append(client.post("/api/v1/jobs", json=body).json["id"])
        control(db).expand()
        work_off(db, lambda image: bad(image) if image.path == b"c/5.jpg" else ok(image))
    return made


def items(client: FlaskClient, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(path, query_string=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json["items"]
    return found


def test_results_of_many_jobs_page_by_page(client: FlaskClient, two: list[str]) -> None:
    found, query = [], {"limit": "5"}
    while True:
        page = client.get("/api/v1/results", query_string=query).json
        found += page["items"]
        query["after"] = page["next"]
        if not page["has_more"]:
            break
    assert [item["job"] for item in found] == [two[0]] * 6 + [two[1]] * 6
    assert {item["file"] for item in found} >= {"a/b/3.jpg", "6.jpg"}


def test_jobs_and_results_are_chosen_alike(client: FlaskClient, two: list[str]) -> None:
    for query, jobs in [
        ({"metadata.study": "x"}, two[:1]),
        ({"metadata.study": "y", "metadata.n": "7"}, two[1:]),
        ({"metadata.study": "z"}, []),
        ({"model": "tiny"}, two),
        ({"model": "tiny@0000"}, []),
        ({"status": "completed", "created_after": "2020-01-01T00:00:00Z"}, two),
        ({"finished_before": "2020-01-01T00:00:00+01:00"}, []),
    ]:
        assert sorted(item["id"] for item in items(client, "/api/v1/jobs", **query)) == sorted(jobs)
        assert sorted({item["job"] for item in items(client, "/api/v1/results", **query)}) == sorted(jobs)
        assert client.get("/api/v1/summary", query_string=query).json["jobs"] == len(jobs)
    assert len(items(client, "/api/v1/results", label="happy", prefix="c/", min_confidence="0.6")) == 2
    assert [item["error"]["code"] for item in items(client, "/api/v1/results", outcome="failed")] == ["corrupt"] * 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("metadata.=x", "metadata."),
        ("metadat.x=1", "metadat.x"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-01T00:00:00", "created_after"),
        ("status=gone", "status"),
    ],
)
def test_typing_errors_are_seen(client: FlaskClient, query: str, field: str) -> None:
    for path in ("/api/v1/jobs", "/api/v1/results", "/api/v1/summary"):
        answer = client.get(f"{path}?{query}")
        assert (answer.status_code, answer.json["code"], answer.json["field"]) == (400, "invalid_request", field)


def test_sums_and_folders(client: FlaskClient, two: list[str]) -> None:
    over = client.get("/api/v1/summary").json
    assert (over["jobs"], over["faces"]["happy"], over["errors"]) == (2, 10, {"corrupt": 2})
    inside = client.get(f"/api/v1/jobs/{two[0]}/summary?folder=c").json
    assert (inside["faces"]["happy"], inside["outcomes"]["failed"]) == (1, 1)
    page = client.get(f"/api/v1/jobs/{two[0]}/folders?limit=2").json
    assert ([item["folder"] for item in page["items"]], page["has_more"]) == (["", "a"], True)
    rest = client.get(f"/api/v1/jobs/{two[0]}/folders?limit=2&after={page['next']}").json
    assert ([item["folder"] for item in rest["items"]], rest["next"]) == (["c"], None)


def test_a_model_has_a_card_and_workers(client: FlaskClient, db: Database) -> None:
    model = client.get("/api/v1/models").json["items"][0]
    beat(db, name="w", host="h", pid=1, device="cpu", precisions=["fp32"], models=[model["revision"]], engines=1,
         images_per_s=None, version="0")  # fmt: skip
    for name in ("tiny", f"tiny@{model['revision'][:8]}", model["revision"], "default"):
        card = client.get(f"/api/v1/models/{name}").json
        assert (card["name"], card["workers"], card["card"], card["grey"]) == ("tiny", ["w"], None, True)
    missing = client.get("/api/v1/models/nobody")
    assert (missing.status_code, missing.json["code"]) == (404, "unknown_model")


def test_an_admin_chooses_the_default_model(client: FlaskClient, app: Flask, db: Database, tmp_path: Path) -> None:
    settings = parts_of(app).settings
    fixed = client.put("/api/v1/models/default", json={"model": "tiny"})
    assert (fixed.status_code, fixed.json["code"]) == (409, "default_model_set")
    parts_of(app).settings = settings.model_copy(update={"model": "default"})
    install_model(settings.models, "other")
    assert client.put("/api/v1/models/default", json={"model": "other"}).json["name"] == "other"
    assert client.get("/api/v1/models/default").json["name"] == "other"
    wrong = client.put("/api/v1/models/default", json={"model": "nobody"})
    assert (wrong.status_code, wrong.json["code"]) == (422, "unknown_model")
    assert client.put("/api/v1/models/default", json={"modell": "x"}).json["field"] in ("model", "modell")
    _, secret = create_key(db, "k", scope="submit")
    refused = client.put(
        "/api/v1/models/default", json={"model": "tiny"}, headers={"Authorization": f"Bearer {secret}"}
    )
    assert (refused.status_code, refused.json["code"]) == (403, "scope_needed")


def test_a_key_that_reads_changes_nothing(client: FlaskClient, db: Database, photos: Path, two: list[str]) -> None:
    _, secret = create_key(db, "reader", owner="local", scope="read")
    key = {"Authorization": f"Bearer {secret}"}
    assert client.get(f"/api/v1/jobs/{two[0]}", headers=key).status_code == 200
    assert client.get(f"/api/v1/jobs/{two[0]}/results.csv", headers=key).status_code == 200
    body = {"source": {"type": "folder", "path": str(photos)}}
    for answer in (
        client.post("/api/v1/jobs", json=body, headers=key),
        client.post(f"/api/v1/jobs/{two[0]}/cancel", headers=key),
        client.delete(f"/api/v1/jobs/{two[0]}", headers=key),
    ):
        assert (answer.status_code, answer.json["code"]) == (403, "scope_needed")
    assert client.get(f"/api/v1/jobs/{two[0]}", headers=key).json["status"] == "completed"
