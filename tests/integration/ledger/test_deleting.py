"""Deleting, one step at a time: what each writes on the job, its receipt, the audit log and the erasure log."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.erasure_log import Erasure, name_hash
from mien.ledger.purge import delete_slice
from mien.ledger.receipts import finish_for_job, job_receipt
from mien.ledger.replay import as_erasure, unrecorded
from mien.ledger.retention import expire_results
from mien.ledger.submit import submit
from mien.ledger.work import take_job
from mien.receipts import get_receipt, request_content, request_delete, request_images
from mien.schema import audit, jobs
from tests.support.ledger import assert_exact, bad, control, expanded_job, make_files, new_job, ok, work_off


def the_job(db: Database, public_id: str) -> sa.Row[Any]:
    with db.read() as connection:
        return connection.execute(sa.select(jobs).where(jobs.c.public_id == public_id)).one()


def test_a_receipt_is_finished_with_its_own_job_and_once(db: Database) -> None:
    with db.write() as connection:
        now = db.now(connection)
        gone = job_receipt(connection, "local", "gone", now)
        there = job_receipt(connection, "local", "still there", now, reason="retention")
        finish_for_job(connection, "gone", now + dt.timedelta(seconds=5))
        finish_for_job(connection, "gone", now + dt.timedelta(seconds=9))
    assert get_receipt(db, "local", gone).finished_at == now + dt.timedelta(seconds=5)
    assert get_receipt(db, "local", there).finished_at is None


def test_while_a_job_is_deleted_its_counters_equal_what_is_left(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 40, chunk_size=1)  # more chunks than one slice takes
    work_off(db, ok, limit=10)
    work_off(db, bad, limit=5)
    receipt = request_delete(db, "local", job)
    lease = take_job(db, "control", 60, purge=True)
    assert lease is not None
    assert delete_slice(db, lease) is True
    left = assert_exact(db, job)
    assert (left.total, left.ok, left.failed, left.pending, left.faces) == (8, 0, 0, 8, 0)
    counts = get_receipt(db, "local", receipt.public_id).counts
    assert (counts["images"], counts["faces"]) == (32, 10)
    assert delete_slice(db, lease) is True
    assert assert_exact(db, job).total == 0
    assert delete_slice(db, lease) is False


def test_a_job_whose_time_has_come_is_deleting_and_the_audit_log_says_why(db: Database, tmp_path: Path) -> None:
    due = expanded_job(db, tmp_path / "a", 1, keep_results_s=0, owner="alice")
    kept = expanded_job(db, tmp_path / "b", 1, keep_results_s=3600)
    work_off(db)
    before = the_job(db, due)
    assert expire_results(db) == 1
    after = the_job(db, due)
    assert (after.status, after.request, after.version) == ("deleting", None, before.version + 1)
    assert after.deleting_at >= before.completed_at
    assert the_job(db, kept).status == "completed"
    with db.read() as connection:
        (entry,) = connection.execute(sa.select(audit)).all()
    receipt = get_receipt(db, "alice", entry.receipt)
    assert (entry.owner, entry.action, entry.detail, entry.job) == ("alice", "deleted", "retention", due)
    assert (receipt.job, receipt.reason, receipt.requested_at) == (due, "retention", after.deleting_at)
    assert expire_results(db) == 0


def test_the_erasure_log_knows_an_image_by_its_exact_path(db: Database, tmp_path: Path) -> None:
    folder = make_files(tmp_path / "odd", 2)
    Path(f"{folder}/bytes\udcff.jpg").write_bytes(b"")
    odd, _ = submit(db, new_job(folder))
    control(db).expand()
    expanded_job(db, tmp_path / "other", 2)
    single = request_images(db, "local", odd, ["bytes\\xff.jpg", "00001.jpg"])
    content = request_content(db, "local", "0F" * 32)
    whole = request_delete(db, "local", odd)
    with db.read() as connection:
        images, of_content, job = (as_erasure(connection, receipt) for receipt in unrecorded(db))
    assert (images.receipt, images.at, images.owner, images.kind, images.job, images.sha256) == (
        single.public_id, single.requested_at, "local", "images", odd, None,
    )  # fmt: skip
    assert {name_hash(single.public_id, path) for path in (b"bytes\xff.jpg", b"00001.jpg")} <= set(images.files)
    assert name_hash(single.public_id, b"00000.jpg") not in images.files
    assert of_content == Erasure(content.public_id, content.requested_at, "local", "sha256", sha256="0f" * 32)
    assert job == Erasure(whole.public_id, whole.requested_at, "local", "job", job=odd)
