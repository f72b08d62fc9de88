"""Chunks are cut and joined to the size a worker asks for, and every image still ends exactly once."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from mien.database import Database
from mien.ledger.commit import commit_chunk
from mien.ledger.lease import ChunkLease, Kind, Taker, hand_back, take_chunk
from mien.ledger.sizing import SMALLEST, fair_size
from mien.ledger.sweep import take_back_expired
from mien.schema import chunks, images
from tests.support.ledger import assert_exact, expanded_job, ok, taker


def wishing(count: int, name: str = "worker") -> Taker:
    return replace(taker(name), wanted=lambda _: count)


def take(db: Database, count: int, name: str = "worker") -> ChunkLease:
    lease = take_chunk(db, wishing(count, name), 60)
    assert lease is not None
    return lease


def as_walked(db: Database) -> list[int]:
    with db.read() as connection:
        return list(connection.execute(sa.select(images.c.id).order_by(images.c.id)).scalars())


def finish(db: Database, count: int) -> list[int]:
    """Work off what is due, ``count`` images at a time; gives the sizes."""
    sizes = []
    while lease := take_chunk(db, wishing(count), 60):
        commit_chunk(db, lease, [ok(image) for image in lease.images])
        sizes.append(len(lease.images))
    return sizes


def assert_whole(db: Database, job: str, total: int) -> None:
    """Every image once, and chunks that know how many they hold."""
    row = assert_exact(db, job)
    assert (row.status, row.ok, row.total) == ("completed", total, total)
    with db.read() as connection:
        held = connection.execute(
            sa.select(
                chunks.c.id, chunks.c.images, sa.func.count(images.c.id), sa.func.count(images.c.position.distinct())
            )
            .join(images, images.c.chunk_id == chunks.c.id)
            .where(chunks.c.job_id == row.id)
            .group_by(chunks.c.id, chunks.c.images)
        ).all()
        empty = connection.execute(sa.select(sa.func.count()).select_from(chunks)).scalar_one() - len(held)
        numbers = connection.execute(sa.select(chunks.c.commit_number).where(chunks.c.job_id == row.id)).scalars().all()
    assert all(size == rows == places for _, size, rows, places in held)
    assert empty == 0
    assert sorted(numbers) == list(range(1, len(held) + 1))


def test_a_large_chunk_is_cut_from_its_front(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 200, chunk_size=200)
    lease = take(db, 20)
    assert [image.id for image in lease.images] == as_walked(db)[:20]
    commit_chunk(db, lease, [ok(image) for image in lease.images])
    sizes = finish(db, 60)
    assert sizes[0] == 60
    assert_whole(db, job, 200)


def test_small_chunks_are_joined_in_order(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 120, chunk_size=5)
    lease = take(db, 42)
    assert [(image.position, image.id) for image in lease.images] == list(enumerate(as_walked(db)[:40]))
    hand_back(db, lease)
    again = take(db, 42)
    assert again.images == lease.images
    commit_chunk(db, again, [ok(image) for image in again.images])
    finish(db, 1000)
    assert_whole(db, job, 120)


def test_chunks_become_smaller_towards_the_end(db: Database, tmp_path: Path) -> None:
    assert [fair_size(1000, 10_000, 0), fair_size(1000, 1000, 1), fair_size(1000, 100, 1)] == [1000, 250, 25]
    assert fair_size(1000, 3, 9) == SMALLEST
    job = expanded_job(db, tmp_path / "a", 300, chunk_size=100)
    held = [take(db, 100, f"w{number}") for number in range(4)]
    assert [len(lease.images) for lease in held] == [100, 100, 50, 50]  # 75 and 38 were wished
    for lease in held:
        commit_chunk(db, lease, [ok(image) for image in lease.images])
    finish(db, 100)
    assert_whole(db, job, 300)


def test_a_chunk_that_was_lost_keeps_its_images(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 60, chunk_size=30)
    lost = take(db, 30)
    with db.write() as connection:
        past = db.now(connection) - dt.timedelta(seconds=1)
        connection.execute(chunks.update().where(chunks.c.id == lost.chunk_id).values(lease_expires_at=past))
    assert take_back_expired(db) == 1
    assert len(take(db, 16).images) == 30  # neither cut
    with db.write() as connection:
        connection.execute(chunks.update().where(chunks.c.state == "leased").values(state="due", token=None))
    assert len(take(db, 500).images) == 30  # nor joined
    with db.write() as connection:
        connection.execute(chunks.update().where(chunks.c.state == "leased").values(state="due", token=None))
    finish(db, 100)
    assert_whole(db, job, 60)


def test_many_workers_with_different_wishes(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 900, chunk_size=50)
    problems: list[BaseException] = []

    def work(count: int) -> None:
        try:
            while lease := take_chunk(db, wishing(count, f"w{count}"), 60):
                commit_chunk(db, lease, [ok(image) for image in lease.images])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(count,)) for count in (16, 40, 130, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    finish(db, 100)
    assert_whole(db, job, 900)


def test_the_wish_is_for_a_kind_of_job(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 40, chunk_size=40, faces_mode="whole", precision="int8")
    asked: list[Kind] = []

    def wanted(kind: Kind) -> int:
        asked.append(kind)
        return 20

    lease = take_chunk(db, replace(taker(), wanted=wanted), 60)
    assert lease is not None
    assert asked == [lease.kind] == [Kind("a" * 64, "int8", "whole", 640)]
    assert len(lease.images) == 20
