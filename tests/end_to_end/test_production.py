"""Production: PostgreSQL, Redis, and the processes that docker-compose.yml starts, killed one by one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from tests.end_to_end.system import ByHand, Mien, grey, rows_of
from tests.support.redis import Redis

pytestmark = [pytest.mark.postgres, pytest.mark.redis, pytest.mark.reliability]


def assert_exact(mien: Mien, job: str, images: int) -> None:
    """One row per face, none lost and none twice."""
    rows = rows_of(mien.run("results", job))
    assert len(rows) == images
    assert len({row["file"] for row in rows}) == images
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.parametrize("name", ["worker", "control", "web"])
def test_a_killed_process_that_is_started_again_loses_nothing(
    by_hand: ByHand, many: Callable[[int], Path], name: str
) -> None:
    mien, photos = by_hand.mien, many(200)
    job = mien.job_of(photos)
    mien.wait_for(lambda: mien.counts(job)["ok"] > 0, "some images are done")
    children = psutil.Process(by_hand.processes[name].pid).children(recursive=True)
    by_hand.kill(name)
    mien.wait_for(lambda: not any(_lives(child) for child in children), f"what the {name} had started has left")
    by_hand.start(name)
    mien.wait_for(mien.answers, "the front end answers")
    mien.run("status", job, "--wait")
    assert_exact(mien, job, 200)


def test_a_stopped_worker_hands_its_work_back_at_once(by_hand: ByHand, many: Callable[[int], Path]) -> None:
    mien, photos = by_hand.mien, many(200)
    job = mien.job_of(photos)
    mien.wait_for(lambda: mien.counts(job)["ok"] > 0, "some images are done")
    worker = by_hand.processes["worker"]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0
    by_hand.start("worker")
    mien.run("status", job, "--wait")
    assert_exact(mien, job, 200)


def test_jobs_are_accepted_and_done_although_the_broker_was_away(by_hand: ByHand, redis: Redis, photos: Path) -> None:
    for level in range(20):
        grey(photos / f"{level}.png", 10 * level)
    mien = by_hand.mien
    redis.stop()
    job = mien.job_of(photos, "whole")  # answered although nobody can be told
    assert mien.counts(job)["ok"] == 0
    redis.start()
    mien.run("status", job, "--wait")
    assert_exact(mien, job, 20)


def test_a_key_is_needed_and_a_revoked_one_opens_nothing(by_hand: ByHand, photos: Path) -> None:
    mien = by_hand.mien
    jobs = f"{mien.url()}/api/v1/jobs"
    assert requests.get(jobs, timeout=10).status_code == 401
    key = mien.run("keys", "create", "lab").strip()
    header = {"Authorization": f"Bearer {key}"}
    assert requests.get(jobs, headers=header, timeout=10).status_code == 200
    listed = mien.run("keys", "list")
    assert key not in listed
    (number,) = [line.split()[0] for line in listed.splitlines() if " lab " in line]
    mien.run("keys", "revoke", number)
    assert requests.get(jobs, headers=header, timeout=10).status_code == 401


def test_a_folder_outside_the_roots_is_refused(by_hand: ByHand) -> None:
    said = by_hand.mien.run("classify", "/etc", code=1)
    assert "outside the folders" in said


def test_without_a_key_the_front_end_refuses_to_listen_beyond_loopback(by_hand: ByHand) -> None:
    mien = by_hand.mien
    for number in [line.split()[0] for line in mien.run("keys", "list").splitlines()[1:]]:
        mien.run("keys", "revoke", number)
    by_hand.processes["web"].terminate()
    by_hand.processes["web"].wait(timeout=30)
    by_hand.start("web")
    assert by_hand.processes["web"].wait(timeout=30) != 0
    assert "there is no API key" in (mien.files.logs / "web.log").read_text()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
