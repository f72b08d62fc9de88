"""What each step of the work writes on the rows of the job, its chunks and images: who holds them, since when, why."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mien.database import Database
from mien.jobs import request_retry
from mien.ledger.commit import FaceOutcome, ImageOutcome, commit_chunk, face_values, kept_face
from mien.ledger.expand import MAX_ETAG, begin_expansion, finish_expansion, write_slice
from mien.ledger.lease import Due, due_jobs, hand_back, renew_chunk, take_chunk
from mien.ledger.retry import begin_retry, finish_retry, retry_slice
from mien.ledger.submit import submit
from mien.ledger.sweep import take_back_expired
from mien.ledger.work import JobLease, fail_job, release_job, set_notice, take_job
from mien.schema import MAX_PATH_BYTES, chunks, images, jobs, tallies
from tests.support.ledger import LABELS, bad, expanded_job, face, make_files, new_job, ok, taker, work_off

FREE = {"token": None, "lease_owner": None, "lease_expires_at": None}


def one(db: Database, table: sa.Table, *where: sa.ColumnElement[bool]) -> dict[str, Any]:
    with db.read() as connection:
        return dict(connection.execute(sa.select(table).where(*where)).one()._mapping)


def now(db: Database) -> dt.datetime:
    with db.read() as connection:
        return db.now(connection)


def begun(db: Database, folder: Path, **changes: Any) -> JobLease:
    """A job whose expansion has begun."""
    submit(db, new_job(make_files(folder, 0), **changes))
    lease = take_job(db, "control-1", 60, purge=False)
    assert lease is not None
    begin_expansion(db, lease)
    return lease


def test_a_lease_holds_all_that_its_job_asks_for(db: Database, tmp_path: Path) -> None:
    expanded_job(
        db, tmp_path / "a", 3, model="own", model_revision="b" * 64, precision="int8", faces_mode="whole",
        detect_size=320, min_face_score=0.4, min_face=24, fingerprint="e" * 64, owner="alice",
    )  # fmt: skip
    lease = take_chunk(db, taker(precisions=("int8",)), 60)
    assert lease is not None
    job = one(db, jobs)
    held = asdict(lease)
    same = set(held) - {"chunk_id", "job_id", "token", "suspect", "labels", "images"}
    assert {name: held[name] for name in same} == {name: job[name] for name in same}
    assert (lease.job_id, lease.labels, lease.suspect) == (job["id"], LABELS, False)
    assert [image.position for image in lease.images] == [0, 1, 2]
    assert {image.path for image in lease.images} == {b"00000.jpg", b"00001.jpg", b"00002.jpg"}
    assert all(image.file == image.path for image in lease.images)
    assert asdict(lease.kind) == {
        name: job[name] for name in ("model_revision", "precision", "faces_mode", "detect_size")
    }


def test_a_leased_chunk_says_who_has_it_and_until_when(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 2)
    before = now(db)
    lease = take_chunk(db, taker("anna"), 60)
    after = now(db)
    assert lease is not None
    chunk = one(db, chunks)
    assert (chunk["state"], chunk["token"], chunk["lease_owner"]) == ("leased", lease.token, "anna")
    assert before <= chunk["lease_expires_at"] - dt.timedelta(seconds=60) <= after
    assert before <= one(db, jobs)["last_leased_at"] <= after

    assert renew_chunk(db, lease, 600)
    assert after <= one(db, chunks)["lease_expires_at"] - dt.timedelta(seconds=600) <= now(db)

    hand_back(db, lease)
    chunk = one(db, chunks)
    assert chunk | {"state": "due"} | FREE == chunk


def test_an_ended_job_lets_no_lease_be_renewed(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 2)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    fail_job(db, lease.job_id, "model_gone", "The model is gone.")
    assert not renew_chunk(db, lease, 60)


def test_a_committed_chunk_is_nobodys_and_numbered(db: Database, tmp_path: Path) -> None:
    job_id = expanded_job(db, tmp_path / "a", 4, chunk_size=2)
    set_notice(db, one(db, jobs)["id"], "source_away", "It waits.")
    before = now(db)
    first, second = work_off(db)
    job = one(db, jobs)
    assert (job["commits"], job["pending"], job["ok"], job["faces"]) == (2, 0, 4, 4)
    assert before <= job["last_commit_at"] == job["completed_at"]
    assert (job["notice_code"], job["notice"]) == (None, None)  # what held it back does so no more
    for number, lease in enumerate((first, second), start=1):
        chunk = one(db, chunks, chunks.c.id == lease.chunk_id)
        assert chunk | {"state": "done", "commit_number": number} | FREE == chunk
        assert before <= chunk["committed_at"] <= job["last_commit_at"]
    assert job["public_id"] == job_id


def test_what_a_walk_could_not_read_stays_on_the_job(db: Database, tmp_path: Path) -> None:
    lease = begun(db, tmp_path / "a")
    write_slice(db, lease, [b"1.jpg"], 0, 4)
    finish_expansion(db, lease, "1 folder could not be read.")
    work_off(db)
    job = one(db, jobs)
    assert (job["status"], job["notice_code"], job["notice"]) == (
        "completed", "folders_unreadable", "1 folder could not be read.",
    )  # fmt: skip


def test_a_lost_chunk_is_free_again_and_the_loss_counted(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expanded_job(db, tmp_path / "a", 2)
    assert take_chunk(db, taker("anna"), -1) is not None
    assert take_back_expired(db) == 1
    chunk = one(db, chunks)
    assert chunk | {"state": "due", "losses": 1, "suspect": False} | FREE == chunk
    assert f"chunk {chunk['id']} of job {chunk['job_id']}: the lease of anna ran out" in caplog.text


def test_faces_are_kept_as_they_are_shown() -> None:
    kept = kept_face(7, 2, FaceOutcome(1.26, 2.34, 10.06, 20.04, 0.12345678, (0.1234567, 0.4382717, 0.4382717)))
    assert kept.box == (1.3, 2.3, 10.1, 20.0)
    assert (kept.image_id, kept.number, kept.score) == (7, 2, 0.123457)
    assert (kept.top, kept.probabilities) == (1, (0.123457, 0.438272, 0.438272))  # of equal labels the first
    assert kept_face(1, 0, FaceOutcome(0, 0, 1, 1, None, (1.0,))).score is None
    with pytest.raises(ValueError, match="shorter"):
        face_values(face(0.6, 0.4), LABELS)  # a probability too few


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"outcome": "pending", "faces": ()}, id="no outcome"),
        pytest.param({"faces": ()}, id="ok without a face"),
        pytest.param({"outcome": "no_face"}, id="no_face with one"),
        pytest.param({"error_code": "corrupt"}, id="ok with an error"),
        pytest.param({"outcome": "failed", "faces": ()}, id="failed without an error"),
        pytest.param({"outcome": "failed", "error_code": "corrupt"}, id="failed with a face"),
        pytest.param({"faces": (face(0.5, 0.5),)}, id="a probability too few"),
    ],
)  # fmt: skip
def test_an_outcome_that_contradicts_itself_writes_nothing(db: Database, tmp_path: Path, wrong: dict[str, Any]) -> None:
    expanded_job(db, tmp_path / "a", 1)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    values: dict[str, Any] = {"outcome": "ok", "faces": (face(),)} | wrong
    with pytest.raises(ValueError, match=r"outcome|labels"):
        commit_chunk(db, lease, [ImageOutcome(lease.images[0].id, **values)])
    assert (one(db, chunks)["state"], one(db, jobs)["pending"]) == ("leased", 1)


def test_the_steps_of_an_expansion_are_dated_once(db: Database, tmp_path: Path) -> None:
    before = now(db)
    lease = begun(db, tmp_path / "a")
    job = one(db, jobs)
    assert job["status"] == "expanding"
    assert before <= job["expanding_at"] <= now(db)
    write_slice(db, lease, [b"1.jpg"], 3, 4)
    begin_expansion(db, lease)  # after a crash it walks again, and counts again what it passes over
    again = one(db, jobs)
    assert (again["skipped"], again["expanding_at"], again["total"]) == (0, job["expanding_at"], 1)
    assert again["version"] > job["version"]
    assert finish_expansion(db, lease, None) == "running"
    job = one(db, jobs)
    assert (job["status"], job["request"], job["notice_code"]) == ("running", None, None)
    assert again["expanding_at"] <= job["running_at"] == job["expanded_at"] <= now(db)


def test_names_become_rows_in_their_order(db: Database, tmp_path: Path) -> None:
    lease = begun(db, tmp_path / "a")
    listed = {b"1.jpg": ("tag", 10), b"2.jpg": ("t" * MAX_ETAG, 20), b"3.jpg": ("t" * (MAX_ETAG + 1), None)}
    assert write_slice(db, lease, list(listed), 0, 2, listed=listed) == 3
    with db.read() as connection:
        rows = connection.execute(sa.select(images).order_by(images.c.id)).all()
        sizes = connection.execute(sa.select(chunks.c.images, chunks.c.state).order_by(chunks.c.id)).all()
    assert [(r.path, r.path_text, r.position, r.outcome, r.etag, r.bytes) for r in rows] == [
        (b"1.jpg", "1.jpg", 0, "pending", "tag", 10),
        (b"2.jpg", "2.jpg", 1, "pending", "t" * MAX_ETAG, 20),
        (b"3.jpg", "3.jpg", 0, "pending", None, None),
    ]
    assert [tuple(size) for size in sizes] == [(2, "due"), (1, "due")]


def test_a_path_too_long_ends_at_once_and_says_so(db: Database, tmp_path: Path) -> None:
    lease = begun(db, tmp_path / "a")
    longest, first, second = b"x" * MAX_PATH_BYTES, b"y" * (MAX_PATH_BYTES + 1), b"y" * (MAX_PATH_BYTES + 2)
    assert write_slice(db, lease, [longest, first, second], 0, 4) == 1
    job = one(db, jobs)
    assert (job["total"], job["pending"], job["failed"], job["commits"]) == (3, 1, 2, 1)
    with db.read() as connection:
        rows = connection.execute(
            sa.select(images).where(images.c.outcome == "failed").order_by(images.c.position)
        ).all()
    assert [row.position for row in rows] == [0, 1]
    assert {row.error_code for row in rows} == {"path_too_long"}
    assert [str(MAX_PATH_BYTES + n) in row.error for n, row in enumerate(rows, start=1)] == [True, True]
    assert all(len(row.path) <= MAX_PATH_BYTES and row.path.startswith(b"yyy") and b"...#" in row.path for row in rows)
    assert rows[0].path != rows[1].path
    done = one(db, chunks, chunks.c.id == rows[0].chunk_id)
    assert (done["state"], done["images"], done["commit_number"]) == ("done", 2, 1)


def test_a_job_in_hands_says_whose_until_it_is_released(db: Database, tmp_path: Path) -> None:
    submit(db, new_job(make_files(tmp_path / "a", 1)))
    version, before = one(db, jobs)["version"], now(db)
    lease = take_job(db, "control-1", 60, purge=False)
    assert lease is not None
    job = one(db, jobs)
    assert (lease.job_id, lease.public_id, lease.status, lease.request) == (
        job["id"], job["public_id"], "queued", "expand",
    )  # fmt: skip
    assert (job["lease_token"], job["lease_owner"], job["version"]) == (lease.token, "control-1", version + 1)
    assert before <= job["lease_expires_at"] - dt.timedelta(seconds=60) <= now(db)
    assert take_job(db, "control-2", 60, purge=False) is None
    release_job(db, lease)
    job = one(db, jobs)
    assert (job["lease_token"], job["lease_owner"], job["lease_expires_at"]) == (None, None, None)
    assert job["version"] == version + 2
    assert take_job(db, "control-2", 60, purge=False, skip=[job["id"]]) is None
    assert take_job(db, "control-2", -1, purge=False) is not None
    late = take_job(db, "control-3", 60, purge=False)  # the lease of the second ran out
    assert late is not None
    release_job(db, lease)  # no longer its own
    assert one(db, jobs)["lease_token"] == late.token


def test_a_job_that_fails_says_why_and_once(db: Database, tmp_path: Path) -> None:
    submit(db, new_job(make_files(tmp_path / "a", 1)))
    job = one(db, jobs)
    set_notice(db, job["id"], "source_away", "It waits.")
    assert (one(db, jobs)["notice_code"], one(db, jobs)["notice"]) == ("source_away", "It waits.")
    version, before = one(db, jobs)["version"], now(db)
    set_notice(db, job["id"], "source_away", "It waits.")
    assert one(db, jobs)["version"] == version  # nothing new to tell
    fail_job(db, job["id"], "source_gone", "The folder is gone.")
    failed = one(db, jobs)
    assert failed | {
        "status": "failed", "request": None, "error_code": "source_gone", "error": "The folder is gone.",
        "notice_code": None, "notice": None, "version": version + 1,
    } == failed  # fmt: skip
    assert before <= failed["failed_at"] <= now(db)
    fail_job(db, job["id"], "model_gone", "Too late.")
    assert one(db, jobs) == failed


def test_due_jobs_say_what_a_worker_needs(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 1, model="one", model_revision="c" * 64, precision="int8")
    assert due_jobs(db) == [Due(one(db, jobs)["id"], "int8", "one", "c" * 64)]
    assert take_chunk(db, taker(), 60) is not None
    assert due_jobs(db) == []


def test_retried_images_are_as_new(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 3, chunk_size=4)
    work_off(db, lambda image: bad(image) if image.position else ok(image))
    with db.write() as connection:  # as `mien retry` asks for it
        connection.execute(jobs.update().values(status="running", request="retry", completed_at=None))
        connection.execute(images.update().values(etag="as it was"))
    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    assert begin_retry(db, lease) is True
    last = retry_slice(db, lease, 0, 1)
    assert last is not None
    assert retry_slice(db, lease, last, 1) is None
    finish_retry(db, lease)
    job = one(db, jobs)
    assert (job["status"], job["pending"], job["failed"], job["ok"], job["request"]) == ("running", 2, 0, 1, None)
    with db.read() as connection:
        waiting = connection.execute(sa.select(images).where(images.c.outcome == "pending")).all()
        fresh = connection.execute(sa.select(chunks).where(chunks.c.state == "due").order_by(chunks.c.id)).all()
    assert [(r.position, r.error_code, r.error, r.etag) for r in waiting] == [(0, None, None, None)] * 2
    assert [(c.images, c.losses) for c in fresh] == [(1, 0), (1, 0)]
    assert {r.chunk_id for r in waiting} == {c.id for c in fresh}
    work_off(db)
    assert one(db, jobs)["status"] == "completed"


def test_an_image_that_fails_again_waits_for_another_retry(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 3)
    work_off(db, bad)
    request_retry(db, "local", job)
    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    begin_retry(db, lease)
    last = retry_slice(db, lease, 0, 4)
    assert last is not None
    work_off(db, bad)  # before the retry has looked for more
    assert retry_slice(db, lease, last, 4) is None
    finish_retry(db, lease)
    row = one(db, jobs)
    assert (row["status"], row["failed"]) == ("completed", 3)


def test_a_tally_says_between_which_paths_its_images_lie(db: Database, tmp_path: Path) -> None:
    lease = begun(db, tmp_path / "a")
    write_slice(db, lease, [b"b/2.jpg", b"b/3.jpg", b"b/1.jpg", b"c.jpg"], 0, 4)
    work_off(db)
    with db.read() as connection:
        found = connection.execute(
            sa.select(tallies.c.folder, tallies.c.first_path, tallies.c.last_path).order_by(tallies.c.folder)
        ).all()
    assert [tuple(row) for row in found] == [(b"", b"c.jpg", b"c.jpg"), (b"b", b"b/1.jpg", b"b/3.jpg")]


def test_an_image_without_a_face_is_done(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 2)
    work_off(db, lambda image: ok(image) if image.position else ImageOutcome(image.id, "no_face"))
    job = one(db, jobs)
    assert (job["status"], job["ok"], job["no_face"], job["faces"]) == ("completed", 1, 1, 1)


def test_a_chunk_lost_three_times_is_halved_until_one_image_is_left(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 3)
    lost: list[list[tuple[int, int, bool]]] = []
    for _ in range(5):
        while take_chunk(db, taker(), -1) is not None:
            pass
        take_back_expired(db)
        with db.read() as connection:
            rows = connection.execute(sa.select(chunks).order_by(chunks.c.id)).all()
        lost.append([(row.images, row.losses, row.suspect) for row in rows])
    assert lost == [
        [(3, 1, False)],
        [(3, 2, False)],
        [(1, 2, False), (2, 2, False)],
        [(1, 3, True), (1, 2, False), (1, 2, False)],
        [(1, 4, True), (1, 3, True), (1, 3, True)],
    ]
