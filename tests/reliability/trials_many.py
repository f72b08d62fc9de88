"""Promises 11 and 14: many at once."""

from __future__ import annotations

import json
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import requests
import sqlalchemy as sa

from mien.database import Database
from mien.errors import LeaseLostError
from mien.jobs import request_cancel, request_retry
from mien.ledger.commit import ImageOutcome, commit_chunk
from mien.ledger.lease import LeasedImage, hand_back, take_chunk
from mien.ledger.submit import submit as write_job
from mien.ledger.sweep import take_back_expired
from mien.receipts import request_delete
from mien.schema import jobs
from tests.reliability.jobs import check, finish, greys, new_folder
from tests.reliability.promises import Trial, promise
from tests.reliability.systems import Production, System
from tests.support.ledger import assert_exact, bad, control, make_files, new_job, ok, taker


@promise(11, "The same key makes one job")
def one_key_one_job(trial: Trial) -> str:
    """Concurrent submissions with one idempotency key: one job, and as many equal answers."""
    system, rounds, at_once = trial.system, trial.size(1, 4), 50
    for _ in range(rounds):
        folder = new_folder(system)
        names = greys(folder, 20, "x")
        (job,) = {
            json.loads(body)["id"] for body in _all_at_once(system, at_once, {"type": "folder", "path": str(folder)})
        }
        finish(system, job)
        check(system, job, names)
        # a draft does not change by itself: its answers are equal to the last byte
        (draft,) = _all_at_once(system, at_once, {"type": "upload"})
        with system.client() as client:
            client.delete(json.loads(draft)["id"])
    return f"{2 * rounds} keys, {at_once} submissions each at once: {2 * rounds} jobs, {at_once} equal answers each"


def _all_at_once(system: System, count: int, source: dict[str, str]) -> set[str]:
    """The different answers to so many equal submissions."""
    key = secrets.token_hex(16)
    headers = {"Authorization": f"Bearer {system.mien.key()}", "Idempotency-Key": key}
    address = f"{system.mien.url()}/api/v1/jobs"
    gate = threading.Barrier(count)

    def send(_: int) -> requests.Response:
        gate.wait()
        return requests.post(
            address, json={"source": source, "options": {"faces": "whole"}}, headers=headers, timeout=60
        )

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(send, range(count)))
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers][:3]
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    with system.db.read() as connection:
        made = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.idempotency_key == key)
        assert connection.execute(made).scalar_one() == 1
    return {answer.text for answer in answers}


@promise(14, "Commits do not deadlock")
def no_deadlock(trial: Trial) -> str:
    """Eight workers commit chunks of one job while it is cancelled, retried and deleted."""
    system, rounds = trial.system, trial.size(1, 2)
    commits = 0
    for round_ in range(rounds):
        commits += _Crowd(system, trial, round_).run()
    if isinstance(system, Production):
        said = system.postgres.log.read_text(errors="replace")
        assert "deadlock" not in said, said[said.index("deadlock") - 500 :][:1500]
    assert not (defects := system.watcher.take_defects()), defects[:3]
    return f"{rounds} jobs, 8 workers, {commits:,} commits among cancels, retries and deletions: 0 deadlocks"


class _Crowd:
    """Eight workers on a ledger job of a model that no real worker has, and whoever interferes."""

    WORKERS = 8

    def __init__(self, system: System, trial: Trial, round_: int) -> None:
        self._url = system.database_url()
        self._db = system.db
        self._count = trial.size(2400, 6000)
        self._files = make_files(trial.folder / f"crowd{round_}", self._count)
        self._few = make_files(trial.folder / f"few{round_}", 300)
        self._deletions = trial.size(6, 20)
        self._dice = trial.dice
        self._revision = secrets.token_hex(32)
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self._commits = 0
        self._lock = threading.Lock()

    def run(self) -> int:
        job = self._new_job(self._files)
        threads = [threading.Thread(target=self._guarded, args=(self._work, n)) for n in range(self.WORKERS)]
        threads += [threading.Thread(target=self._guarded, args=(self._control, n)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                at = self._commits
                self._wait(lambda at=at: self._commits > at + 30 or self._status(job) == "completed")
                if self._status(job) == "completed":
                    break
                request_cancel(self._db, "crowd", job)
                self._wait(lambda: self._status(job) == "cancelled")
                assert_exact(self._db, job)
                request_retry(self._db, "crowd", job)
                self._wait(lambda: self._status(job) in ("running", "completed"))
            self._delete(job)
            for _ in range(self._deletions):  # each in the midst of its first commits
                doomed, at, few = self._new_job(self._few), self._commits, self._dice.randrange(1, 9)
                self._wait(lambda at=at, few=few: self._commits >= at + few)
                self._delete(doomed)
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        assert not self._errors, self._errors[0]
        return self._commits

    def _new_job(self, files: Path) -> str:
        job, _ = write_job(self._db, new_job(files, model_revision=self._revision, owner="crowd"))
        return job

    def _delete(self, job: str) -> None:
        request_delete(self._db, "crowd", job)
        self._wait(lambda: self._status(job) is None)

    def _guarded(self, work: object, number: int) -> None:
        try:
            work(number)  # type: ignore[operator]
        except BaseException as error:
            self._errors.append(error)
            self._over.set()

    def _work(self, number: int) -> None:
        db = Database(self._url)
        me = taker(f"crowd{number}")
        me = type(me)(me.name, me.precisions, (self._revision,))
        while not self._over.is_set():
            lease = take_chunk(db, me, 60)
            if lease is None:
                self._over.wait(0.01)
                continue
            if lease.chunk_id % 7 == number % 7:
                hand_back(db, lease)
                continue
            try:
                commit_chunk(db, lease, [_mixed(image) for image in lease.images])
            except LeaseLostError:
                continue
            with self._lock:
                self._commits += 1
        db.dispose()

    def _control(self, _number: int) -> None:
        db = Database(self._url)
        process = control(db, chunk_size=8, ahead_s=0)  # nobody takes up parked walks here
        while not self._over.is_set():
            process.expand()
            process.purge()
            take_back_expired(db)
            self._over.wait(0.1)
        db.dispose()

    def _wait(self, is_so: object) -> None:
        for _ in range(6000):
            assert not self._errors, self._errors[0]
            if is_so():  # type: ignore[operator]
                return
            threading.Event().wait(0.01)
        raise AssertionError("the crowd is stuck")

    def _status(self, job: str) -> str | None:
        with self._db.read() as connection:
            return cast(
                "str | None",
                connection.execute(sa.select(jobs.c.status).where(jobs.c.public_id == job)).scalar_one_or_none(),
            )


def _mixed(image: LeasedImage) -> ImageOutcome:
    return ok(image) if image.position % 3 == 0 else bad(image)
