"""A job once more: the same images, what is to be different, and neither job hangs on the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from mien.control import Control
from mien.database import Database
from mien.jobs import get_job
from mien.uploads import uploads_folder
from tests.support.ledger import assert_exact, control, make_files, work_off
from tests.support.uploads import FORM, form
from tests.support.web import install_model, parts_of


def controlling(app: Flask, db: Database) -> Control:
    return control(db, data_dir=parts_of(app).settings.data_dir)


def submitted(client: FlaskClient, source: dict[str, Any], **body: Any) -> str:
    answer = client.post("/api/v1/jobs", json={"source": source, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json["id"])


def test_a_folder_is_walked_again_with_another_model(
    app: Flask, client: FlaskClient, db: Database, photos: Path
) -> None:
    install_model(parts_of(app).settings.models, "other")
    make_files(photos / "a", 3)
    source = {"type": "folder", "path": str(photos / "a"), "exclude": ["*2.jpg"]}
    options = {"faces": "whole", "min_face": 5, "detect_size": 320}
    first = submitted(client, source, options=options, metadata={"n": 1}, keep_results=1000)
    controlling(app, db).expand()
    work_off(db)
    make_files(photos / "a", 5)
    same = client.post(f"/api/v1/jobs/{first}/rerun", json={})
    assert same.status_code == 202
    assert same.headers["Location"] == f"/api/v1/jobs/{same.json['id']}" != f"/api/v1/jobs/{first}"
    for name in ("source", "model", "options", "metadata", "keep_results", "keep_images"):
        assert same.json[name] == client.get(f"/api/v1/jobs/{first}").json[name]
    changes = {"model": "other", "options": {"min_face": 0, "faces": "detect"}, "metadata": {"n": 2}, "keep_results": 9}
    other = client.post(f"/api/v1/jobs/{first}/rerun", json=changes).json
    assert other["model"]["name"] == "other"
    assert (other["options"]["min_face"], other["options"]["detect_size"]) == (0, 320)
    assert (other["options"]["faces"], other["metadata"], other["keep_results"]) == ("detect", {"n": 2}, 9)
    controlling(app, db).expand()
    assert (assert_exact(db, first).total, assert_exact(db, other["id"]).total) == (2, 4)
    assert client.get(f"/api/v1/jobs/{first}").json["status"] == "completed"


def test_uploads_are_taken_over_and_each_job_deletes_its_own(app: Flask, client: FlaskClient, db: Database) -> None:
    files = {f"sub/{n}.jpg": b"image %d" % n for n in range(30)}
    sent = client.post("/api/v1/jobs", data=form(files, job={"source": {"type": "upload"}}), headers=FORM)
    first = sent.json["id"]
    tools, settings = controlling(app, db), parts_of(app).settings
    second = client.post(f"/api/v1/jobs/{first}/rerun", json={}).json
    assert (second["source"]["files"], second["source"]["bytes"]) == (30, sum(map(len, files.values())))
    tools.expand()
    work_off(db)
    assert client.delete(f"/api/v1/jobs/{first}").status_code == 202
    assert client.delete(f"/api/v1/jobs/{second['id']}/images?path=sub/7.jpg").status_code == 202
    tools.purge()
    assert client.get(f"/api/v1/jobs/{first}").status_code == 404
    assert not uploads_folder(settings, first).exists()
    kept = [path.read_bytes() for path in uploads_folder(settings, second["id"]).rglob("*") if path.is_file()]
    assert sorted(kept) == sorted(content for name, content in files.items() if name != "sub/7.jpg")
    row = assert_exact(db, second["id"])
    assert (row.total, row.upload_files) == (29, 29)
    third = client.post(f"/api/v1/jobs/{second['id']}/rerun", json={}).json
    tools.expand()
    assert assert_exact(db, third["id"]).total == 29


def test_what_cannot_be_run_again_is_told(app: Flask, client: FlaskClient, db: Database, photos: Path) -> None:
    make_files(photos / "a", 1)
    first = submitted(client, {"type": "folder", "path": str(photos / "a")})
    draft = submitted(client, {"type": "upload"})
    gone = client.post(
        "/api/v1/jobs", data=form({"a.jpg": b"a"}, job={"source": {"type": "upload"}, "keep_images": 0}), headers=FORM
    )
    tools = controlling(app, db)
    tools.expand()
    work_off(db)
    tools.sweep()
    address = f"/api/v1/jobs/{first}/rerun"
    for path, body, status, code in [
        (address, {"model": "nobody"}, 422, "unknown_model"),
        (address, {"options": {"precision": "int8"}}, 422, "precision_unavailable"),
        (address, {"options": {"face": 1}}, 400, "invalid_request"),
        (address, {"source": {"type": "upload"}}, 400, "invalid_request"),
        (f"/api/v1/jobs/{draft}/rerun", {}, 409, "job_is_draft"),
        (f"/api/v1/jobs/{gone.json['id']}/rerun", {}, 409, "images_gone"),
        ("/api/v1/jobs/0/rerun", {}, 404, "unknown_job"),
    ]:
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    assert client.post(address).status_code == 415
    (photos / "a").rename(photos / "b")
    assert client.post(address, json={}).json["code"] == "source_missing"
    client.delete(f"/api/v1/jobs/{first}")
    assert client.post(address, json={}).json["code"] == "job_deleting"
    root = parts_of(app).settings.data_dir / "uploads"
    assert {path.name for path in root.iterdir() if path.is_dir()} == {draft}


def test_one_key_runs_it_again_once(client: FlaskClient, db: Database, photos: Path) -> None:
    make_files(photos / "a", 1)
    first = submitted(client, {"type": "folder", "path": str(photos / "a")})
    key = {"Idempotency-Key": "again"}
    answers = [client.post(f"/api/v1/jobs/{first}/rerun", json={}, headers=key) for _ in range(3)]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true", "true"]
    assert get_job(db, "local", answers[0].json["id"]).status == "queued"
    other = client.post(f"/api/v1/jobs/{first}/rerun", json={"metadata": {"x": 1}}, headers=key)
    assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")
