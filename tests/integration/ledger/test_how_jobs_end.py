"""How a job ends: one date for each end, its images' outcomes; what its owner has used; what a restore sets free."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.jobs import request_cancel
from mien.ledger.lease import take_chunk
from mien.ledger.restored import is_empty, settle
from mien.ledger.submit import submit
from mien.ledger.usage import add_usage, used_today
from mien.ledger.work import fail_job, take_job
from mien.schema import chunks, deliveries, images, jobs, usage
from mien.settings import load_settings
from mien.states import FINAL_STATUSES, JOB_STATUSES
from mien.webhooks import create_webhook
from tests.support.ledger import bad, control, expanded_job, make_files, new_job, ok, taker, work_off

DATES = ("completed_at", "cancelled_at", "failed_at", "expanded_at")


def rows(db: Database, table: sa.Table, *where: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
    with db.read() as connection:
        found = connection.execute(sa.select(table).where(*where).order_by(table.c.id)).all()
    return [dict(row._mapping) for row in found]


def dated(job: dict[str, Any]) -> set[str]:
    return {name for name in DATES if job[name] is not None}


def test_each_end_has_a_date_of_its_own(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "done", 2)
    work_off(db)
    cancelled = expanded_job(db, tmp_path / "cancelled", 40, chunk_size=1)  # more chunks than one slice takes
    request_cancel(db, "local", cancelled)
    control(db).purge()
    expanded_job(db, tmp_path / "failed", 2)
    fail_job(db, rows(db, jobs)[2]["id"], "model_gone", "The model is gone.")
    control(db).purge()
    done, stopped, failed = rows(db, jobs)
    assert [job["status"] for job in (done, stopped, failed)] == ["completed", "cancelled", "failed"]
    assert dated(done) == {"completed_at", "expanded_at"}
    assert dated(stopped) == {"cancelled_at", "expanded_at"}
    assert dated(failed) == {"failed_at", "expanded_at"}
    assert (stopped["cancelled"], stopped["pending"], stopped["commits"]) == (40, 0, 40)
    assert (failed["failed"], failed["pending"]) == (2, 0)
    for job, outcome, code in ((stopped, "cancelled", None), (failed, "failed", "model_gone")):
        its = rows(db, images, images.c.job_id == job["id"])
        assert {(image["outcome"], image["error_code"]) for image in its} == {(outcome, code)}
        ended = rows(db, chunks, chunks.c.job_id == job["id"])
        assert {chunk["state"] for chunk in ended} == {"done"}
        assert [chunk["commit_number"] for chunk in ended] == list(range(1, job["commits"] + 1))
    assert {image["error"] for image in rows(db, images, images.c.job_id == failed["id"])} == {"The model is gone."}


def test_a_job_that_was_cancelled_while_some_were_done_is_not_completed(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4, chunk_size=2)
    work_off(db, bad, limit=1)
    request_cancel(db, "local", job)
    control(db).purge()
    (row,) = rows(db, jobs)
    assert (row["status"], row["failed"], row["cancelled"], dated(row)) == (
        "cancelled", 2, 2, {"cancelled_at", "expanded_at"},
    )  # fmt: skip


def test_whoever_listens_is_told_all_of_the_end(db: Database, tmp_path: Path) -> None:
    create_webhook(db, load_settings(webhook_networks=("127.0.0.0/8",)), "local", "http://127.0.0.1:9/")
    expanded_job(db, tmp_path / "a", 3, metadata={"study": "pilot"}, model_revision="b" * 64)
    work_off(db, lambda image: bad(image) if image.position == 0 else ok(image))
    (job,) = rows(db, jobs)
    (told,) = rows(db, deliveries)
    ended = told["payload"]["timestamp"]
    assert dt.datetime.fromisoformat(ended) == job["completed_at"] and ended.endswith("Z")
    created = told["payload"]["data"]["created_at"]
    assert dt.datetime.fromisoformat(created) == job["created_at"] and created.endswith("Z")
    assert told["event"] == "job.completed"
    assert told["payload"] == {
        "type": "job.completed",
        "timestamp": ended,
        "data": {
            "id": job["public_id"],
            "status": "completed",
            "counts": {
                "total": 3, "pending": 0, "ok": 2, "no_face": 0, "failed": 1, "cancelled": 0,
                "faces": 2, "skipped": 0, "cached": 0,
            },
            "model": {"name": "tiny", "revision": "b" * 64},
            "metadata": {"study": "pilot"},
            "error_code": None,
            "created_at": created,
            "ended_at": ended,
        },
    }  # fmt: skip


def test_used_today_is_the_owners_own_and_todays(db: Database, tmp_path: Path) -> None:
    with db.write() as connection:
        now = db.now(connection)
        add_usage(connection, "alice", now, images=3)
        add_usage(connection, "alice", now, images=4, size=100)
        add_usage(connection, "alice", now - dt.timedelta(days=1), images=50, size=50)
        add_usage(connection, "bob", now, size=7)
    submit(db, new_job(make_files(tmp_path / "a", 1), owner="alice"))
    submit(db, new_job(make_files(tmp_path / "b", 1), owner="alice"))
    submit(db, new_job(make_files(tmp_path / "c", 1), owner="bob"))
    fail_job(db, rows(db, jobs)[0]["id"], "model_gone", "The model is gone.")
    used = used_today(db, "alice")
    assert (used.images, used.bytes, used.open_jobs) == (7, 100, 1)
    midnight = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    assert 0 < used.day_ends_in_s <= int((midnight - now).total_seconds()) + 1
    other = used_today(db, "bob")
    assert (other.images, other.bytes, other.open_jobs) == (0, 7, 1)
    nobody = used_today(db, "carol")
    assert (nobody.images, nobody.bytes, nobody.open_jobs) == (0, 0, 0)
    with db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(usage)).scalar_one() == 3


def test_a_restored_ledger_is_nobodys_and_finds_its_folders(db: Database, tmp_path: Path) -> None:
    assert is_empty(db)
    expanded_job(db, tmp_path / "a", 4, chunk_size=2)
    assert not is_empty(db)
    assert take_chunk(db, taker(), 600) is not None
    submit(db, new_job(make_files(tmp_path / "b", 1), source_type="upload"))
    assert take_job(db, "control", 600, purge=False) is not None
    before = rows(db, jobs)
    asked: list[bytes] = []

    def identity_of(path: bytes) -> None:
        asked.append(path)

    left = settle(db, lambda public_id: (f"/uploads/{public_id}".encode(), "here"), identity_of)
    assert left == 2
    assert asked == [bytes(tmp_path / "a")]
    folder, uploaded = rows(db, jobs)
    assert (folder["source_path"], folder["source_identity"]) == (bytes(tmp_path / "a"), None)
    assert (uploaded["source_path"], uploaded["source_identity"]) == (
        f"/uploads/{uploaded['public_id']}".encode(), "here",
    )  # fmt: skip
    for job, earlier in zip((folder, uploaded), before, strict=True):
        assert (job["lease_token"], job["lease_owner"], job["lease_expires_at"]) == (None, None, None)
        assert job["version"] > earlier["version"]
    for chunk in rows(db, chunks):
        assert (chunk["state"], chunk["token"], chunk["lease_owner"], chunk["lease_expires_at"], chunk["losses"]) == (
            "due", None, None, None, 0,
        )  # fmt: skip
    work_off(db, ok)
    assert rows(db, jobs)[0]["status"] == "completed"


def test_of_a_restored_ledger_the_jobs_that_have_not_ended_are_counted(db: Database, tmp_path: Path) -> None:
    for status in JOB_STATUSES:
        job, _ = submit(db, new_job(make_files(tmp_path / status, 0)))
        with db.write() as connection:
            connection.execute(jobs.update().where(jobs.c.public_id == job).values(status=status))
    unfinished = len(JOB_STATUSES) - len(FINAL_STATUSES)
    assert settle(db, lambda _: (b"", ""), lambda _: None) == unfinished
