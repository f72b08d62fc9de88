"""Owners share the workers, run so many jobs at once, and a huge source is written down only as it is needed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien import control as control_module
from mien.database import Database
from mien.heartbeat import beat
from mien.jobs import get_job, request_cancel
from mien.ledger.lease import take_chunk
from mien.ledger.submit import submit
from mien.ledger.work import JobLease, take_job
from mien.schema import jobs
from tests.support.ledger import assert_exact, control, expanded_job, make_files, new_job, taker, work_off


def lease_owner(db: Database, public_id: str) -> str | None:
    with db.read() as connection:
        return connection.execute(sa.select(jobs.c.lease_owner).where(jobs.c.public_id == public_id)).scalar_one()


def test_owners_share_the_workers_however_many_jobs_each_has(db: Database, tmp_path: Path) -> None:
    for number in range(3):
        expanded_job(db, tmp_path / f"many{number}", 40, owner="many")
    expanded_job(db, tmp_path / "one", 40, owner="one")
    taken = [lease.owner for _ in range(8) if (lease := take_chunk(db, taker(), 60))]
    assert taken.count("one") == taken.count("many") == 4


def test_an_owner_runs_so_many_jobs_at_once_and_the_others_wait_their_turn(db: Database, tmp_path: Path) -> None:
    ids = [submit(db, new_job(make_files(tmp_path / str(n), 4)))[0] for n in range(3)]
    other, _ = submit(db, new_job(make_files(tmp_path / "other", 4), owner="other"))
    keeper = control(db, running_jobs=1)
    keeper.expand()
    assert [get_job(db, "local", i).status for i in ids] == ["running", "queued", "queued"]
    assert get_job(db, "other", other).status == "running"
    keeper.sweep()
    waiting = get_job(db, "local", ids[1])
    assert waiting.notice_code == "running_limit"
    assert "One of your jobs runs" in (waiting.notice or "")
    work_off(db)
    keeper.expand()
    assert [get_job(db, "local", i).status for i in ids] == ["completed", "running", "queued"]
    assert get_job(db, "local", ids[1]).notice is None
    request_cancel(db, "local", ids[1])
    keeper.purge()
    keeper.expand()
    assert get_job(db, "local", ids[2]).status == "running"


def test_two_who_begin_at_the_same_moment_keep_the_limit(db: Database, tmp_path: Path) -> None:
    for number in range(6):
        submit(db, new_job(make_files(tmp_path / str(number), 1)))
    begun: list[JobLease | None] = []
    gate = threading.Barrier(6)

    def begin(number: int) -> None:
        gate.wait()
        begun.append(take_job(db, f"control{number}", 60, purge=False, most=2))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 6
    assert sum(lease is not None for lease in begun) == 2


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "SLICE_IMAGES", 10)
    monkeypatch.setattr(control_module, "LEAST_AHEAD", 40)


@pytest.mark.usefixtures("small_steps")
def test_a_huge_source_is_written_down_as_the_workers_need_it(db: Database, tmp_path: Path) -> None:
    public_id, _ = submit(db, new_job(make_files(tmp_path / "huge", 200)))
    keeper = control(db, chunk_size=10)
    keeper.expand()
    job = get_job(db, "local", public_id)
    assert (job.status, job.counts["total"]) == ("expanding", 40)
    keeper.go_on_walking()  # nobody has done anything: nothing more is needed
    assert get_job(db, "local", public_id).counts["total"] == 40
    assert lease_owner(db, public_id) == "control"
    most = 0
    for _ in range(100):
        work_off(db, limit=1)
        keeper.go_on_walking()
        most = max(most, get_job(db, "local", public_id).counts["pending"])
    assert most <= 50
    job = get_job(db, "local", public_id)
    assert (job.status, job.counts["ok"]) == ("completed", 200)
    assert keeper.parked == {}
    assert lease_owner(db, public_id) is None
    assert_exact(db, public_id)


@pytest.mark.usefixtures("small_steps")
def test_how_far_ahead_follows_the_speed_of_the_workers(db: Database, tmp_path: Path) -> None:
    public_id, _ = submit(db, new_job(make_files(tmp_path / "huge", 200)))
    for name in ("a", "b"):
        beat(
            db, name=name, host="h", pid=1, device="cpu", precisions=["fp32"], models=[], engines=1, images_per_s=1.0,
            version="0",
        )  # fmt: skip
    control(db, chunk_size=10, ahead_s=60).expand()
    assert get_job(db, "local", public_id).counts["total"] == 120
    boundless, _ = submit(db, new_job(make_files(tmp_path / "other", 200)))
    control(db, ahead_s=0).expand()
    assert get_job(db, "local", boundless).counts["total"] == 200


@pytest.mark.usefixtures("small_steps")
def test_a_parked_walk_is_let_go_when_its_job_or_its_process_ends(db: Database, tmp_path: Path) -> None:
    cancelled, _ = submit(db, new_job(make_files(tmp_path / "a", 100)))
    left, _ = submit(db, new_job(make_files(tmp_path / "b", 100)))
    keeper = control(db, chunk_size=10)
    keeper.expand()
    assert len(keeper.parked) == 2
    request_cancel(db, "local", cancelled)
    keeper.go_on_walking()
    keeper.purge()
    assert get_job(db, "local", cancelled).status == "cancelled"
    keeper.let_go()
    assert lease_owner(db, left) is None
    successor = control(db, chunk_size=10)  # walks again from the start; what is there is passed over
    successor.expand()
    for _ in range(100):
        work_off(db)
        successor.go_on_walking()
    job = assert_exact(db, left)
    assert (job.status, job.ok) == ("completed", 100)
