"""Seconds per stage: kept with each chunk, summed for the job, and what they say about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.database import Database
from mien.jobs import get_job
from mien.ledger.commit import commit_chunk
from mien.ledger.lease import take_chunk
from mien.schema import chunks, jobs
from mien.stage_times import STAGES, TIME_FIELDS, Clock
from tests.support.ledger import expanded_job, ok, taker

OF_AN_IMAGE = {"read_s": 0.01, "read_wait_s": 0.02, "decode_s": 0.1, "detect_s": 0.3, "classify_s": 0.2}


def test_chunks_keep_them_and_the_job_has_their_sum(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 10, chunk_size=4)
    while lease := take_chunk(db, taker(), 60):
        outcomes = [replace(ok(image), **OF_AN_IMAGE) for image in lease.images]
        commit_chunk(db, lease, outcomes, spent={"read_s": 0.5, "write_wait_s": 0.25}, clock=Clock())
    with db.read() as connection:
        kept = connection.execute(sa.select(chunks).order_by(chunks.c.commit_number)).mappings().all()
        total = connection.execute(sa.select(jobs)).mappings().one()
    assert [row["images"] for row in kept] == [4, 4, 2]
    for row in kept:
        assert row["detect_s"] == pytest.approx(0.3 * row["images"])
        assert row["read_s"] == pytest.approx(0.01 * row["images"] + 0.5)
        assert row["read_wait_s"] == pytest.approx(0.02 * row["images"])
        assert row["write_s"] > 0
        assert row["write_wait_s"] >= 0.25
    for name in TIME_FIELDS:
        assert total[name] == pytest.approx(sum(row[name] for row in kept)), name
    shown = get_job(db, "local", job)
    assert list(shown.stage_seconds) == list(shown.stage_waits) == list(STAGES)
    assert shown.stage_seconds["decode"] == pytest.approx(1.0)
    assert shown.stage_waits["read"] == pytest.approx(0.2)


def test_a_job_says_what_holds_it_back(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 8, chunk_size=8)
    assert get_job(db, "local", job).bottleneck is None
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    long = {name: 100 * seconds for name, seconds in OF_AN_IMAGE.items()}  # however long this commit itself takes
    commit_chunk(db, lease, [replace(ok(image), **long) for image in lease.images])
    found = get_job(db, "local", job).bottleneck
    assert found is not None
    assert found.code == "detect"
    assert "--faces whole" in found.detail
