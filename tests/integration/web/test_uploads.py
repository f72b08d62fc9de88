"""Uploads over HTTP on both databases: what arrives, what is refused, and that nothing half-written remains."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from mien.jobs import get_job
from mien.ledger.lease import take_chunk
from mien.schema import jobs, uploads
from tests.support.ledger import assert_exact, control, ok, taker, work_off
from tests.support.uploads import BOUNDARY, FORM, facts, form, images, listed, part, problem, stored, zipped
from tests.support.web import make_settings, parts_of
from web.app import create_app

NASTY = "sub/new%0Aline, 'single', 😀, %22quotes%22 =1+1.jpg"
NASTY_PATH = "sub/new\nline, 'single', 😀, \"quotes\" =1+1.jpg"
ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def draft(client: FlaskClient) -> str:
    answer = client.post("/api/v1/jobs", json={"source": {"type": "upload"}, "options": {"faces": "whole"}})
    assert (answer.status_code, answer.json["status"]) == (202, "draft")
    job: str = answer.json["id"]
    return job


def test_many_requests_one_job(app: Flask, client: FlaskClient, db: Database, draft: str) -> None:
    files = {f"{number:04d}.jpg": b"%d" % number for number in range(10)}
    first = client.post(images(draft), data=form(files), headers=FORM)
    assert first.json == {
        "files": 10, "bytes": 10, "replaced": 0, "skipped": {}, "skipped_files": [],
        "total_files": 10, "total_bytes": 10,
    }  # fmt: skip
    more = {NASTY_PATH: b"nasty", "key without ending": b"no ending"}
    assert (
        client.post(
            images(draft), data=form([(NASTY, b"nasty"), ("key without ending", b"no ending")]), headers=FORM
        ).json["total_files"]
        == 12
    )
    assert listed(client, draft) == facts(files | more)
    status = client.get(f"/api/v1/jobs/{draft}").json
    assert status["source"] == {
        "type": "upload", "path": None, "files": 12, "bytes": 24, "recursive": True, "include": [], "exclude": []
    }  # fmt: skip

    answer = client.post(f"/api/v1/jobs/{draft}/submit")
    assert (answer.status_code, answer.json["status"]) == (202, "queued")
    assert answer.headers["Location"] == f"/api/v1/jobs/{draft}"
    control(db, data_dir=parts_of(app).settings.data_dir, chunk_size=5).expand()
    for lease in (leases := work_off(db)):
        for image in lease.images:
            path = Path(os.fsdecode(lease.source_path)) / image.file.decode()
            assert path.read_bytes() == (files | more)[image.path.decode()]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert [image.path for lease in leases for image in lease.images] == sorted(
        os.fsencode(name) for name in files | more
    )
    assert assert_exact(db, draft).status == "completed"
    rows = client.get(f"/api/v1/jobs/{draft}/results").json["items"]
    assert {row["file"] for row in rows} == set(files | more)


def test_the_same_path_again_replaces(app: Flask, client: FlaskClient, draft: str) -> None:
    client.post(images(draft), data=form({"a.jpg": b"old", "b.jpg": b"b"}), headers=FORM)
    again = client.post(images(draft), data=form([("a.jpg", b"newer"), ("a.jpg", b"newest")]), headers=FORM).json
    assert (again["replaced"], again["total_files"], again["total_bytes"]) == (1, 2, 7)
    assert listed(client, draft) == facts({"a.jpg": b"newest", "b.jpg": b"b"})
    assert stored(app) == [b"b", b"newest"]


def test_one_path_from_many_at_once_ends_as_one_whole_file(app: Flask, draft: str) -> None:
    def put(number: int) -> int:
        data = b"%d" % number * 50_000
        return app.test_client().put(images(draft), query_string={"path": "same.jpg"}, data=data).status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(put, range(10, 26))) == {200}
    (kept,) = listed(app.test_client(), draft).values()
    (content,) = stored(app)
    assert kept == (100_000, hashlib.sha256(content).hexdigest())
    assert content == content[:2] * 50_000


def test_paths_that_are_no_utf8_come_exactly(app: Flask, client: FlaskClient, db: Database, draft: str) -> None:
    raw = b"caf\xe9/100%25 \\ \n.jpg"
    body = part("images", b"1", "ignored.jpg", Mien_Path=quote(raw, safe="")) + f"--{BOUNDARY}--\r\n".encode()
    assert client.post(images(draft), data=body, headers=FORM).status_code == 200
    assert client.put(f"{images(draft)}?path={quote(raw + b'2', safe='')}", data=b"2").status_code == 200
    with db.read() as connection:
        assert list(connection.execute(sa.select(uploads.c.path).order_by(uploads.c.path)).scalars()) == [
            raw,
            raw + b"2",
        ]


def test_what_came_whole_before_an_error_stays_and_nothing_else(app: Flask, client: FlaskClient, draft: str) -> None:
    whole = {f"{number}.jpg": b"whole" for number in range(3)}
    cut = form({**whole, "cut.jpg": b"x" * 300_000}, end=False)[:-1000]
    problem(client.post(images(draft), data=cut, headers=FORM), 400, "bad_form")
    evil = client.post(images(draft), data=form([("ok.jpg", b"ok"), ("../x.jpg", b"evil")]), headers=FORM)
    assert "'../x.jpg'" in problem(evil, 400, "bad_path")["detail"]
    broken = zipped({"zipped.jpg": b"ok", "b.jpg": os.urandom(1000)})[:-900]
    problem(client.post(images(draft), data=broken, headers=ZIP), 422, "archive_damaged")
    assert listed(client, draft) == facts({**whole, "ok.jpg": b"ok", "zipped.jpg": b"ok"})
    assert stored(app) == sorted([*whole.values(), b"ok", b"ok"])


@pytest.fixture
def small(tmp_path: Path, db: Database) -> Iterator[Flask]:
    """A Mien with small limits."""
    settings = make_settings(
        tmp_path, database_url=db.url.render_as_string(hide_password=False),
        max_file_bytes=1024, max_upload_files=5, max_upload_bytes=3000, max_upload_request_bytes=10_000,
    )  # fmt: skip
    app = create_app(settings)
    yield app
    parts_of(app).db.dispose()


def test_limits(small: Flask) -> None:
    client = small.test_client()
    job = client.post("/api/v1/jobs", json={"source": {"type": "upload"}}).json["id"]
    too_large = client.post(images(job), data=form({"a.jpg": b"1" * 1025}), headers=FORM)
    assert "1,024" in problem(too_large, 413, "file_too_large")["detail"]
    archive = zipped({"a.bmp": bytes(1025)})
    problem(client.post(images(job), data=archive, headers=ZIP), 413, "file_too_large")
    whole = client.put(images(job), query_string={"path": "a.jpg"}, data=b"1" * 10_001)
    assert "10,001" in problem(whole, 413, "too_large")["detail"]
    many = {f"{number}.jpg": b"" for number in range(6)}
    assert (
        "this would be 6"
        in problem(client.post(images(job), data=form(many), headers=FORM), 413, "job_too_large")["detail"]
    )
    problem(client.post(images(job), data=zipped(many), headers=ZIP), 413, "archive_too_many")
    assert len(listed(client, job)) == 5
    for number in range(2):
        assert client.put(images(job), query_string={"path": f"{number}.jpg"}, data=b"x" * 1000).status_code == 200
    big = client.put(images(job), query_string={"path": "2.jpg"}, data=b"x" * 1001)
    assert "3,001" in problem(big, 413, "job_too_large")["detail"]
    assert client.put(images(job), query_string={"path": "1.jpg"}, data=b"x" * 1024).status_code == 200
    assert sorted(map(len, stored(small))) == [0, 0, 0, 1000, 1024]


def test_a_full_disk_is_507(client: FlaskClient, app: Flask, draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 30))
    answer = client.post(images(draft), data=form({"a.jpg": b"1"}), headers=FORM)
    assert "MIEN_MIN_FREE_BYTES" in problem(answer, 507, "no_space")["detail"]
    assert stored(app) == []


def test_only_drafts_take_uploads_and_only_once(client: FlaskClient, db: Database, draft: str, photos: Path) -> None:
    problem(client.post(f"/api/v1/jobs/{draft}/submit"), 409, "draft_empty")
    client.put(images(draft), query_string={"path": "a.jpg"}, data=b"1")
    assert client.post(f"/api/v1/jobs/{draft}/submit").status_code == 202
    problem(client.post(f"/api/v1/jobs/{draft}/submit"), 409, "not_a_draft")
    problem(client.put(images(draft), query_string={"path": "b.jpg"}, data=b"1"), 409, "not_a_draft")
    problem(client.post(images(draft), data=form({"b.jpg": b"1"}), headers=FORM), 409, "not_a_draft")
    assert len(listed(client, draft)) == 1
    folder = client.post("/api/v1/jobs", json={"source": {"type": "folder", "path": str(photos)}}).json["id"]
    problem(client.put(images(folder), query_string={"path": "b.jpg"}, data=b"1"), 409, "not_a_draft")
    problem(client.get(images(folder)), 409, "not_uploaded")
    problem(client.get(images("0" * 21)), 404, "unknown_job")
    problem(client.put(images("0" * 21), query_string={"path": "b.jpg"}, data=b"1"), 404, "unknown_job")
    del db


def test_uploads_and_a_submission_at_once(app: Flask, db: Database, draft: str) -> None:
    app.test_client().put(images(draft), query_string={"path": "first.jpg"}, data=b"1")

    def act(number: int) -> int:
        client = app.test_client()
        if number == 6:
            return client.post(f"/api/v1/jobs/{draft}/submit").status_code
        return client.put(images(draft), query_string={"path": f"{number}.jpg"}, data=b"1").status_code

    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(act, range(12)))
    assert codes[6] == 202
    assert set(codes) <= {200, 202, 409}
    data_dir = parts_of(app).settings.data_dir
    control(db, data_dir=data_dir).expand()
    job = assert_exact(db, draft)
    assert job.total == job.upload_files == 1 + codes.count(200) == len(stored(app))


def test_a_draft_made_twice_with_one_key_is_one(app: Flask, client: FlaskClient) -> None:
    sent = {"json": {"source": {"type": "upload"}}, "headers": {"Idempotency-Key": "once"}}
    first, second = (client.post("/api/v1/jobs", **sent) for _ in range(2))
    assert first.json["id"] == second.json["id"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(list((parts_of(app).settings.data_dir / "uploads").iterdir())) == 1


def test_all_in_one_request(app: Flask, client: FlaskClient, db: Database) -> None:
    files = {"my key/1": b"one", "my key/2": b"two"}
    body = form(files, {"options": {"faces": "whole"}, "metadata": {"n": 1}})
    answer = client.post("/api/v1/jobs", data=body, headers=FORM)
    assert (answer.status_code, answer.json["status"], answer.json["source"]["files"]) == (202, "queued", 2)
    assert answer.json["metadata"] == {"n": 1}
    job = answer.json["id"]
    control(db, data_dir=parts_of(app).settings.data_dir).expand()
    work_off(db)
    rows = client.get(f"/api/v1/jobs/{job}/results").json["items"]
    assert [row["file"] for row in rows] == list(files)
    assert assert_exact(db, job).status == "completed"


def test_all_in_one_request_with_one_key_is_one_job(app: Flask, client: FlaskClient) -> None:
    def post(files: dict[str, bytes]) -> Any:
        headers = {**FORM, "Idempotency-Key": "once"}
        return app.test_client().post("/api/v1/jobs", data=form(files, {}), headers=headers)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, [{"a.jpg": b"1"}] * 6))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    problem(post({"a.jpg": b"2"}), 422, "idempotency_key_reused")
    assert stored(app) == [b"1"]
    assert len([p for p in (parts_of(app).settings.data_dir / "uploads").iterdir() if p.is_dir()]) == 1


def test_cancelled_deleted_and_idle_drafts_leave_nothing(app: Flask, client: FlaskClient, db: Database) -> None:
    settings = parts_of(app).settings
    made = []
    for name in ("cancelled", "deleted", "idle", "fresh"):
        job = client.post("/api/v1/jobs", json={"source": {"type": "upload"}}).json["id"]
        client.put(images(job), query_string={"path": "a.jpg"}, data=name.encode())
        made.append(job)
    cancelled, deleted, idle, fresh = made
    assert client.post(f"/api/v1/jobs/{cancelled}/cancel").json["status"] == "cancelling"
    assert client.delete(f"/api/v1/jobs/{deleted}").status_code == 202
    with db.write() as connection:
        long_ago = db.now(connection) - dt.timedelta(days=2)
        connection.execute(jobs.update().where(jobs.c.public_id == idle).values(draft_at=long_ago))
        ids = sa.select(jobs.c.id).where(jobs.c.public_id == idle)
        connection.execute(uploads.update().where(uploads.c.job_id.in_(ids)).values(received_at=long_ago))
    cleaner = control(db, data_dir=settings.data_dir)
    for _ in range(2):
        cleaner.sweep()
        cleaner.purge()
    assert stored(app) == [b"fresh"]
    assert get_job(db, "local", cancelled).status == "cancelled"
    assert listed(client, cancelled) == {}
    for job in (deleted, idle):
        problem(client.get(f"/api/v1/jobs/{job}"), 404, "unknown_job")
    assert len(listed(client, fresh)) == 1
    folder = settings.data_dir / "uploads"
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [fresh]


def test_what_a_crash_left_without_a_row_is_cleared_away(
    app: Flask, client: FlaskClient, db: Database, draft: str
) -> None:
    settings = parts_of(app).settings
    client.put(images(draft), query_string={"path": "a.jpg"}, data=b"kept")
    stray = settings.data_dir / "uploads" / draft / "zz" / "half"
    stray.parent.mkdir()
    stray.write_bytes(b"half")
    orphan = settings.data_dir / "uploads" / "000001999990123456789"
    (orphan / "aa").mkdir(parents=True)
    (orphan / "aa" / "x").write_bytes(b"orphan")
    client.post(f"/api/v1/jobs/{draft}/submit")
    cleaner = control(db, data_dir=settings.data_dir)
    cleaner.sweep()
    cleaner.expand()
    assert stored(app) == [b"kept"]
    assert not orphan.exists()


def test_an_upload_deleted_before_its_chunk_is_missing_to_the_worker(
    app: Flask, client: FlaskClient, db: Database, draft: str
) -> None:
    client.put(images(draft), query_string={"path": "a.jpg"}, data=b"1")
    client.post(f"/api/v1/jobs/{draft}/submit")
    control(db, data_dir=parts_of(app).settings.data_dir).expand()
    with db.write() as connection:
        connection.execute(uploads.delete())
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    assert [(image.path, image.file) for image in lease.images] == [(b"a.jpg", b"deleted")]
    assert ok(lease.images[0])
