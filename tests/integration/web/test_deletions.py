"""Deletions over HTTP: receipts, and only of what is one's own."""

from __future__ import annotations

from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from mien.keys import create_key
from tests.support.ledger import assert_exact, control, expanded_job, work_off


def test_single_images_and_contents(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos / "a", 6)
    work_off(db)
    answer = client.delete(f"/api/v1/jobs/{job}/images?path=00001.jpg&path=00002.jpg")
    assert (answer.status_code, answer.json["kind"], answer.json["files"]) == (
        202,
        "images",
        ["00001.jpg", "00002.jpg"],
    )
    assert int(answer.headers["Retry-After"]) > 0
    control(db).purge()
    receipt = client.get(answer.headers["Location"])
    assert receipt.json["deleted"] == {"jobs": 0, "images": 2, "faces": 2, "corrections": 0, "uploads": 0}
    assert receipt.json["finished_at"] is not None
    assert "Retry-After" not in receipt.headers
    assert assert_exact(db, job).total == 4
    assert client.get(f"/api/v1/jobs/{job}").json["counts"]["ok"] == 4
    digest = b"00003.jpg".ljust(32, b"\0").hex()
    answer = client.post("/api/v1/deletions", json={"sha256": digest})
    assert (answer.status_code, answer.json["sha256"]) == (202, digest)
    control(db).purge()
    assert client.get(answer.headers["Location"]).json["deleted"]["images"] == 1
    answer = client.delete(f"/api/v1/jobs/{job}")
    assert (answer.status_code, answer.json["job"], answer.json["reason"]) == (202, job, "request")
    assert client.delete(f"/api/v1/jobs/{job}").json == answer.json
    control(db).purge()
    assert client.get(answer.headers["Location"]).json["deleted"]["images"] == 3
    first = client.get("/api/v1/receipts?limit=2").json
    rest = client.get(f"/api/v1/receipts?limit=2&after={first['next']}").json
    assert [item["kind"] for item in first["items"] + rest["items"]] == ["job", "sha256", "images"]


def test_what_is_wrong_is_told_and_deletes_nothing(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos / "a", 3)
    images = f"/api/v1/jobs/{job}/images"
    many = "&".join(f"path={n}" for n in range(101))
    for method, path, sent, status, code in [
        ("DELETE", images, {}, 400, "invalid_request"),
        ("DELETE", f"{images}?{many}", {}, 400, "invalid_request"),
        ("DELETE", f"{images}?path=00001.jpg&path=x", {}, 404, "unknown_image"),
        ("DELETE", f"{images}?path=00001.jpg&name=x", {}, 400, "invalid_request"),
        ("DELETE", "/api/v1/jobs/0/images?path=00001.jpg", {}, 404, "unknown_job"),
        ("POST", "/api/v1/deletions", {"json": {"sha256": "xyz"}}, 400, "invalid_request"),
        ("POST", "/api/v1/deletions", {"json": {"sha256": "0" * 64, "all": True}}, 400, "invalid_request"),
        ("POST", "/api/v1/deletions", {"data": "x"}, 415, "unsupported_media_type"),
        ("GET", "/api/v1/receipts/0", {}, 404, "unknown_receipt"),
        ("GET", "/api/v1/receipts?after=x", {}, 400, "bad_cursor"),
    ]:
        answer = client.open(path, method=method, **sent)
        assert (answer.status_code, answer.json["code"]) == (status, code), (path, answer.text)
    control(db).purge()
    assert assert_exact(db, job).total == 3
    assert client.get("/api/v1/receipts").json["items"] == []


def test_receipts_and_images_of_another_are_not_there(app: Flask, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos / "a", 3, owner="ann")
    work_off(db)
    ann, bob, reader = (
        {"Authorization": f"Bearer {create_key(db, name, owner=owner, scope=scope)[1]}"}
        for name, owner, scope in (("ann", "ann", "submit"), ("bob", "bob", "submit"), ("reader", "ann", "read"))
    )
    client = app.test_client()
    image = f"/api/v1/jobs/{job}/images?path=00001.jpg"
    assert client.delete(image, headers=bob).json["code"] == "unknown_job"
    assert client.delete(image, headers=reader).json["code"] == "scope_needed"
    content = {"sha256": b"00001.jpg".ljust(32, b"\0").hex()}
    receipt = client.post("/api/v1/deletions", json=content, headers=bob).headers["Location"]
    control(db).purge()
    assert assert_exact(db, job).total == 3
    assert client.get(receipt, headers=ann).json["code"] == "unknown_receipt"
    assert client.get("/api/v1/receipts", headers=ann).json["items"] == []
