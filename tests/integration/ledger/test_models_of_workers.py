"""Workers take jobs whose model they have; a job whose model no live worker has says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mien.database import Database
from mien.heartbeat import beat, leave
from mien.jobs import get_job
from mien.ledger.lease import take_chunk
from tests.support.ledger import control, expanded_job, taker, work_off

ONE, TWO = "a" * 64, "b" * 64


def worker(db: Database, name: str, *models: str, precisions: tuple[str, ...] = ("fp32",)) -> None:
    beat(db, name=name, host="h", pid=1, device="cpu", precisions=precisions, models=models, engines=1,
         images_per_s=None, version="0")  # fmt: skip


def test_a_worker_takes_only_what_it_can_serve(db: Database, tmp_path: Path) -> None:
    first = expanded_job(db, tmp_path / "a", 4, model_revision=ONE)
    second = expanded_job(db, tmp_path / "b", 4, model_revision=TWO)
    has_two = replace(taker(), models=(TWO,))
    lease = take_chunk(db, has_two, 60)
    assert lease is not None and lease.public_id == second
    assert take_chunk(db, has_two, 60) is None
    assert take_chunk(db, replace(taker(), models=()), 60) is None
    lease = take_chunk(db, replace(taker(), models=(ONE, TWO)), 60)
    assert lease is not None and lease.public_id == first


@pytest.mark.parametrize(
    ("live", "code"),
    [
        ([], "no_worker"),
        ([("w", (ONE,), ("bf16",))], "no_worker"),
        ([("w", (TWO,), ("fp32",))], "no_worker_for_model"),
        ([("w", (ONE,), ("bf16",)), ("v", (TWO,), ("fp32",))], "no_worker_for_model"),
        ([("w", (ONE,), ("fp32",))], None),
        ([("w", (TWO,), ("fp32",)), ("v", (ONE, TWO), ("fp32",))], None),
    ],
)
def test_a_job_says_what_it_waits_for(
    db: Database, tmp_path: Path, live: list[tuple[str, tuple[str, ...], tuple[str, ...]]], code: str | None
) -> None:
    job = expanded_job(db, tmp_path / "a", 4, model_revision=ONE)
    for name, models, precisions in live:
        worker(db, name, *models, precisions=precisions)
    control(db).sweep()
    found = get_job(db, "local", job)
    assert found.notice_code == code
    if code == "no_worker_for_model":
        assert found.notice is not None and "tiny" in found.notice and ONE[:12] in found.notice


def test_the_notice_goes_when_the_work_goes_on(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4, model_revision=ONE)
    worker(db, "w", TWO)
    control(db).sweep()
    assert get_job(db, "local", job).notice_code == "no_worker_for_model"
    leave(db, "w")
    worker(db, "v", ONE)
    work_off(db)
    assert get_job(db, "local", job).notice_code is None
