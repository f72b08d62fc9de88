"""Bodies that arrive in every shape: archives, odd names, forms that are none, and what is left of those refused."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from mien.schema import jobs
from tests.support.uploads import BOUNDARY, FORM, facts, form, images, listed, part, problem, stored, tarred, zipped
from tests.support.web import parts_of


@pytest.fixture
def draft(client: FlaskClient) -> str:
    job: str = client.post("/api/v1/jobs", json={"source": {"type": "upload"}}).json["id"]
    return job


@pytest.mark.parametrize(
    ("pack", "kind"),
    [
        (zipped, "application/zip"),
        (tarred, "application/x-tar"),
        (lambda files: tarred(files, "w:gz"), "application/gzip"),
    ],
)
def test_archives(client: FlaskClient, draft: str, pack: Any, kind: str) -> None:
    files = {"a/é.jpg": b"1" * 100_000, "b.PNG": b"", "notes.txt": b"x", "__MACOSX/._b.PNG": b"x", "a/Thumbs.db": b"x"}
    answer = client.post(images(draft), data=pack(files), headers={"Content-Type": kind}).json
    assert (answer["files"], answer["skipped"]) == (2, {"not_an_image": 1, "hidden": 2})
    assert {"file": "notes.txt", "reason": "not_an_image"} in answer["skipped_files"]
    body = part("archive", pack({"c.jpg": b"3"}), "c.zip") + form({"d.jpg": b"4"})
    assert client.post(images(draft), data=body, headers=FORM).json["total_files"] == 4
    assert listed(client, draft) == facts({"a/é.jpg": b"1" * 100_000, "b.PNG": b"", "c.jpg": b"3", "d.jpg": b"4"})


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "a/../b.jpg", "a//b.jpg", "./a.jpg", "a/", "x" * 2001])
def test_names_that_are_refused(app: Flask, client: FlaskClient, draft: str, path: str) -> None:
    answer = client.post(images(draft), data=form({path: b"1"}), headers=FORM)
    assert problem(answer, 400, "bad_path")["field"] == "filename"
    answer = client.put(images(draft), query_string={"path": path}, data=b"1")
    assert problem(answer, 400, "bad_path" if path else "invalid_request")
    assert stored(app) == []


def test_a_form_of_1001_parts_is_refused(client: FlaskClient, draft: str) -> None:
    body = form([(f"{number}.jpg", b"") for number in range(1001)])
    assert "1,000" in problem(client.post(images(draft), data=body, headers=FORM), 413, "too_many_parts")["detail"]
    assert len(listed(client, draft)) == 1000


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"x=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data", 400, "bad_form"),
        (b"no form", f"multipart/form-data; boundary={BOUNDARY}", 400, "bad_form"),
        (f"--{BOUNDARY}\r\n\r\nx".encode(), f"multipart/form-data; boundary={BOUNDARY}", 400, "bad_form"),
        (part("x", b"1") + b"--", f"multipart/form-data; boundary={BOUNDARY}", 400, "invalid_request"),
        (part("x", b"1", X=50_000 * "x"), f"multipart/form-data; boundary={BOUNDARY}", 400, "invalid_request"),
        (part("x", b"1", X=500_000 * "x"), f"multipart/form-data; boundary={BOUNDARY}", 400, "bad_form"),
        (b"", "application/zip", 422, "not_an_archive"),
        (b"\xff\xd8\xff" * 1000, "application/zip", 422, "not_an_archive"),
    ],
)
def test_bodies_that_are_refused(
    app: Flask, client: FlaskClient, draft: str, *, body: bytes, kind: str, status: int, code: str
) -> None:
    problem(client.post(images(draft), data=body, headers={"Content-Type": kind}), status, code)
    assert stored(app) == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (form({"a.jpg": b"1"}), 400, "bad_form"),
        (form({}, {}), 400, "no_images_sent"),
        (form({"a.jpg": b"1"}, {"modle": "x"}), 400, "invalid_request"),
        (form({"a.jpg": b"1"}, {"model": "x"}), 422, "unknown_model"),
        (form({"a.jpg": b"1"}, {"source": {"type": "folder", "path": "/"}}), 400, "invalid_request"),
        (form({"a.jpg": b"1"}, []), 400, "invalid_request"),
        (part("job", b"{nope") + form({"a.jpg": b"1"}), 400, "bad_json"),
        (form({"a.jpg": b"1", "../b.jpg": b"1"}, {}), 400, "bad_path"),
        (form({"a.jpg": b"1" * 5000}, {}, end=False)[:-100], 400, "bad_form"),
        (form([(f"{n}.jpg", b"") for n in range(1001)], {}), 413, "too_many_parts"),
        (part("job", b"{" + b" " * (1 << 20)), 413, "too_large"),
    ],
)
def test_all_in_one_request_or_nothing(
    app: Flask, client: FlaskClient, db: Database, *, body: bytes, status: int, code: str
) -> None:
    problem(client.post("/api/v1/jobs", data=body, headers=FORM), status, code)
    problem(client.post("/api/v1/jobs?x=1", data=form({"a.jpg": b"1"}, {}), headers=FORM), 400, "invalid_request")
    with db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar_one() == 0
    assert list((parts_of(app).settings.data_dir / "uploads").iterdir()) == []
