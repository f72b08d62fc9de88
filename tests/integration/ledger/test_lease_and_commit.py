"""Leases and commits: who may write, what is written, and that the counters never lie."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.database import Database
from mien.errors import LeaseLostError
from mien.ledger.commit import ImageOutcome, commit_chunk
from mien.ledger.lease import hand_back, renew_chunk, take_chunk
from mien.ledger.submit import submit
from mien.ledger.sweep import take_back_expired
from mien.schema import chunks, faces, images
from tests.support.ledger import (
    assert_exact,
    bad,
    control,
    expanded_job,
    make_files,
    new_job,
    ok,
    taker,
    work_off,
)


def test_every_image_ends_once_and_the_job_completes(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 30)
    assert assert_exact(db, job).status == "running"
    work_off(db, limit=3)
    assert assert_exact(db, job).ok == 12
    work_off(db, lambda image: bad(image) if image.path.endswith(b"9.jpg") else ok(image))
    row = assert_exact(db, job)
    assert (row.status, row.ok, row.failed, row.pending, row.commits) == ("completed", 28, 2, 0, 8)
    assert row.completed_at is not None


def test_work_may_be_committed_while_the_source_is_still_walked(db: Database, tmp_path: Path) -> None:
    job, _ = submit(db, new_job(make_files(tmp_path / "a", 5)))
    from mien.ledger.expand import begin_expansion, finish_expansion, write_slice
    from mien.ledger.work import take_job

    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    begin_expansion(db, lease)
    write_slice(db, lease, [b"1.jpg", b"2.jpg"], 0, 64)
    work_off(db)
    assert assert_exact(db, job).status == "expanding"  # nothing pending, yet not the end
    write_slice(db, lease, [b"2.jpg", b"3.jpg"], 2, 64)  # a repeated name is not written twice
    assert finish_expansion(db, lease, None) == "running"
    work_off(db)
    row = assert_exact(db, job)
    assert (row.status, row.total, row.skipped) == ("completed", 3, 2)


def test_expansion_after_everything_was_classified_completes_the_job(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 3)
    work_off(db)
    assert assert_exact(db, job).status == "completed"


def test_a_late_worker_writes_nothing(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4)
    late = take_chunk(db, taker("late"), 0.05)
    assert late is not None
    time.sleep(0.1)
    assert take_back_expired(db) == 1
    assert renew_chunk(db, late, 60) is False
    with pytest.raises(LeaseLostError):
        commit_chunk(db, late, [ok(image) for image in late.images])
    hand_back(db, late)  # does nothing to what is no longer its own
    row = assert_exact(db, job)
    assert (row.ok, row.faces, row.pending) == (0, 0, 4)
    again = take_chunk(db, taker("quick"), 60)
    assert again is not None
    with pytest.raises(LeaseLostError):
        commit_chunk(db, late, [ok(image) for image in late.images])
    commit_chunk(db, again, [ok(image) for image in again.images])
    with pytest.raises(LeaseLostError):
        commit_chunk(db, again, [ok(image) for image in again.images])
    row = assert_exact(db, job)
    assert (row.ok, row.faces, row.status) == (4, 4, "completed")


def test_an_unexpired_lease_is_left_alone(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 4)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    assert take_back_expired(db) == 0
    assert take_chunk(db, taker("other"), 60) is None
    assert renew_chunk(db, lease, 60)


def test_handing_back_costs_nothing(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 4)
    first = take_chunk(db, taker(), 60)
    assert first is not None
    hand_back(db, first)
    second = take_chunk(db, taker(), 60)
    assert second is not None
    assert (second.chunk_id, second.images) == (first.chunk_id, first.images)
    with db.read() as connection:
        assert connection.execute(sa.select(chunks.c.losses)).scalars().all() == [0]


def test_outcomes_that_do_not_fit_the_lease_are_refused_whole(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    good = [ok(image) for image in lease.images]
    for wrong in (
        good[:-1],
        [*good, good[0]],
        [*good[:-1], ImageOutcome(good[-1].image_id, "ok")],
        [*good[:-1], ImageOutcome(good[-1].image_id, "failed")],
        [*good[:-1], ImageOutcome(good[-1].image_id, "maybe")],
    ):
        with pytest.raises(ValueError, match=r"outcome|lease"):
            commit_chunk(db, lease, wrong)
    assert assert_exact(db, job).pending == 4
    commit_chunk(db, lease, good)


def test_a_chunk_lost_three_times_is_split_down_to_one_suspect(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4, chunk_size=4)
    suspects: set[bytes] = set()
    for _ in range(40):
        lease = take_chunk(db, taker("doomed"), 0.01)
        if lease is None:
            break
        if lease.suspect:
            suspects.update(image.path for image in lease.images)
            commit_chunk(db, lease, [bad(image) for image in lease.images])
        elif any(image.path == b"00002.jpg" for image in lease.images):
            time.sleep(0.02)  # this image takes the whole worker with it
            take_back_expired(db)
        else:
            commit_chunk(db, lease, [ok(image) for image in lease.images])
    row = assert_exact(db, job)
    assert suspects == {b"00002.jpg"}
    assert (row.status, row.ok, row.failed) == ("completed", 3, 1)


def test_jobs_share_the_workers_whatever_their_size(db: Database, tmp_path: Path) -> None:
    big = expanded_job(db, tmp_path / "big", 80)
    small = expanded_job(db, tmp_path / "small", 8)
    order = [lease.public_id for lease in work_off(db)]
    assert max(i for i, job in enumerate(order) if job == small) <= 4
    assert order.count(big) == 20


def test_the_job_with_fewer_chunks_in_work_comes_first(db: Database, tmp_path: Path) -> None:
    first = expanded_job(db, tmp_path / "one", 20)
    second = expanded_job(db, tmp_path / "two", 20)
    held = [take_chunk(db, taker(), 60) for _ in range(6)]
    owners = [lease.public_id for lease in held if lease]
    assert (owners.count(first), owners.count(second)) == (3, 3)
    for lease in held:
        if lease and lease.public_id == second:
            hand_back(db, lease)
    owners = [lease.public_id for _ in range(3) if (lease := take_chunk(db, taker(), 60))]
    assert owners == [second] * 3


def test_a_worker_takes_only_what_it_can_do(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 4, precision="bf16")
    assert take_chunk(db, taker(precisions=("fp32", "int8")), 60) is None
    assert take_chunk(db, taker(precisions=("bf16",)), 60) is not None


@pytest.mark.parametrize("workers", [4])
def test_concurrent_workers_write_each_image_once(db: Database, tmp_path: Path, workers: int) -> None:
    job = expanded_job(db, tmp_path / "a", 400, chunk_size=5)
    stop, problems = threading.Event(), []

    def watch() -> None:
        seen = 0
        while not stop.is_set():
            row = assert_exact(db, job)
            done = row.total - row.pending
            if done < seen:
                problems.append(f"the terminal count fell from {seen} to {done}")
            seen = done

    def work(name: str) -> None:
        while lease := take_chunk(db, taker(name), 60):
            commit_chunk(db, lease, [ok(image) for image in lease.images])

    def guarded(run: object, *args: str) -> None:
        try:
            run(*args)  # type: ignore[operator]
        except BaseException as error:  # an assertion in a thread has to reach the test
            problems.append(repr(error))

    watcher = threading.Thread(target=guarded, args=(watch,))
    watcher.start()
    threads = [threading.Thread(target=guarded, args=(work, f"w{n}")) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    watcher.join()
    assert problems == []
    row = assert_exact(db, job)
    assert (row.status, row.ok, row.commits) == ("completed", 400, 80)
    with db.read() as connection:
        numbers = connection.execute(sa.select(chunks.c.commit_number).order_by(chunks.c.commit_number)).scalars().all()
        assert numbers == list(range(1, 81))
        assert connection.execute(sa.select(sa.func.count()).select_from(faces)).scalar_one() == 400


def test_the_faces_are_stored_as_given(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 1)
    work_off(db)
    with db.read() as connection:
        face = connection.execute(sa.select(faces)).one()
        image = connection.execute(sa.select(images)).one()
    assert (face.x, face.y, face.width, face.height, face.score) == (1.0, 2.0, 10.0, 10.0, 0.9)
    assert (face.number, face.emotion, face.confidence) == (0, "happy", 0.7)
    assert face.probabilities == {"happy": 0.7, "sad": 0.2, "neutral": 0.1}
    assert (image.width, image.height, image.faces) == (40, 30, 1)


def test_control_gives_an_expired_expansion_to_another(db: Database, tmp_path: Path) -> None:
    from mien.ledger.expand import begin_expansion, write_slice
    from mien.ledger.work import take_job

    job, _ = submit(db, new_job(make_files(tmp_path / "a", 10)))
    dead = take_job(db, "dead", 0.01, purge=False)
    assert dead is not None
    begin_expansion(db, dead)
    write_slice(db, dead, [b"00001.jpg"], 0, 4)
    time.sleep(0.05)
    control(db, chunk_size=4).expand()
    with pytest.raises(LeaseLostError):
        write_slice(db, dead, [b"00002.jpg"], 0, 4)
    row = assert_exact(db, job)
    assert (row.total, row.status) == (10, "running")
