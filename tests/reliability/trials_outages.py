"""Promises 2, 3, 9, 10, 13 and 15: what Mien stands on goes away, and comes back."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import redis
import requests

from mien.errors import MienError
from tests.end_to_end.system import kill
from tests.reliability.jobs import (
    charged,
    check,
    done,
    exact,
    facts,
    finish,
    greys,
    new_folder,
    submit,
    wait_until_done,
)
from tests.reliability.promises import Trial, promise
from tests.reliability.systems import Production, System, freeze, running, wake
from tests.support.machine import ROOT

WITHIN_S = 60.0
WHOLE = {"faces": "whole"}


@promise(2, "The broker may die")
def broker_dies(trial: Trial) -> str:
    """Redis killed and flushed in mid-job; doorbells that are lost are rung for again."""
    system = trial.system
    folder = new_folder(system)
    names = greys(folder, trial.size(300, 3000))
    job = submit(system, folder)
    wait_until_done(system, job, 20)
    kill(system.broker_process())
    if isinstance(system, Production):
        system.redis_server.stop()
        time.sleep(trial.size(1, 5))
        system.redis_server.start()
    at = done(system, job)
    back = system.wait_for(lambda: done(system, job) > at + 20, "work goes on", WITHIN_S)
    system.wait_for(lambda: _flush(system), "a flush")
    finish(system, job)
    check(system, job, names)
    # the bell itself is lost: nobody else will tell the workers
    folder = new_folder(system)
    names = greys(folder, 40, "x")
    hear = [system.process("control"), *system.workers()]
    freeze(hear)
    job = submit(system, folder)
    time.sleep(0.5)
    assert _flush(system)
    started = time.monotonic()
    wake(hear)
    wait_until_done(system, job, 1, WITHIN_S)
    again = time.monotonic() - started
    finish(system, job)
    check(system, job, names)
    return (
        f"killed and flushed in mid-job: complete; work went on after {back:.1f} s, lost bells rung after {again:.1f} s"
    )


def _flush(system: System) -> bool:
    with contextlib.suppress(redis.RedisError, OSError):
        return bool(system.redis().flushall())
    return False


@promise(3, "The broker may be down at submission")
def broker_down_at_submission(trial: Trial) -> str:
    """202 within a second while the broker hangs or is gone; work starts within 60 s of its return."""
    system, slowest, latest = trial.system, 0.0, 0.0
    kinds = ["hangs", *(["is gone"] if system.way == "production" else [])]
    for kind in kinds * trial.size(1, 3):
        folder = new_folder(system)
        names = greys(folder, 30, "x")
        broker = system.broker_process()
        if kind == "hangs":
            freeze([broker])
        else:
            cast(Production, system).redis_server.stop()
        try:
            with system.client(retries=0) as client:
                for _ in range(trial.size(2, 5)):
                    started = time.monotonic()
                    job = client.submit_folder(folder, faces="whole").id
                    slowest = max(slowest, time.monotonic() - started)
        finally:
            if kind == "hangs":
                wake([broker])
            else:
                cast(Production, system).redis_server.start()
        latest = max(latest, system.wait_for(lambda job=job: done(system, job) > 0, "work starts", WITHIN_S))
        finish(system, job)
        check(system, job, names)
    assert slowest < 1.0, f"a submission took {slowest:.2f} s"
    return (
        f"202 after {slowest:.2f} s at most while it {' or '.join(kinds)}; work began {latest:.1f} s after its return"
    )


@promise(9, "The database may go away")
def database_goes_away(trial: Trial) -> str:
    """PostgreSQL restarted, SQLite locked, in mid-job: 503 with Retry-After or a wait, and everybody goes on."""
    folder = new_folder(trial.system)
    names = greys(folder, trial.size(300, 2000))
    job = submit(trial.system, folder)
    wait_until_done(trial.system, job, 20)
    if isinstance(trial.system, Production):
        told = _restart_postgres(trial.system, trial, job)
    else:
        told = _lock_sqlite(trial.system, job, trial.size(5, 20))
    finish(trial.system, job)
    check(trial.system, job, names)
    losses, suspects = charged(trial.system, job)
    assert (losses, suspects) == (0, 0), "an attempt was charged"
    return f"{told}; 0 failed, 0 attempts charged"


def _restart_postgres(system: Production, trial: Trial, job: str) -> str:
    recovered = 0.0
    modes = ["fast", "immediate"][: trial.size(1, 2)]
    for mode in modes:
        before = done(system, job)
        system.postgres.stop(mode)
        answers = [_asked(system, job) for _ in range(3)]
        time.sleep(trial.size(3, 6))  # longer than a lease
        answers.append(_asked(system, job))
        system.postgres.start()
        assert all(status == 503 and retry for status, retry in answers), answers
        recovered = max(recovered, system.wait_for(lambda: _asked(system, job)[0] == 200, "web recovers", 30))
        system.wait_for(lambda before=before: done(system, job) > before, "the workers go on", 60)
    return (
        f"stopped ({', '.join(modes)}) for longer than a lease: 503 with Retry-After; web back after {recovered:.1f} s"
    )


def _asked(system: System, job: str) -> tuple[int, str | None]:
    answer = requests.get(
        f"{system.mien.url()}/api/v1/jobs/{job}", headers={"Authorization": f"Bearer {system.mien.key()}"}, timeout=30
    )
    return answer.status_code, answer.headers.get("Retry-After")


def _lock_sqlite(system: System, job: str, seconds: float) -> str:
    folder = new_folder(system)
    greys(folder, 5, "x")
    held = sqlite3.connect(system.mien.data / "mien.sqlite3", isolation_level=None, timeout=30, check_same_thread=False)
    held.execute("BEGIN IMMEDIATE")
    release = threading.Timer(seconds, held.rollback)
    release.start()
    started = time.monotonic()
    with system.client(timeout_s=60, retries=0) as client:
        client.job(job)
        read = time.monotonic() - started
        other = client.submit_folder(folder, faces="whole").id
    waited = time.monotonic() - started
    release.join()
    held.close()
    assert read < 2, "a reader had to wait"
    assert waited > seconds / 2, "the lock was not felt"
    finish(system, other)
    return f"locked for {seconds:g} s: a reader answered in {read:.2f} s, a submission waited for {waited:.1f} s"


@promise(10, "The disk may fill")
def disk_fills(trial: Trial) -> str:
    """Uploads and archives stop with 507 before the reserve is touched; running jobs finish."""
    # the shipped model is installed on it, too
    shipped = sum(file.stat().st_size for file in (ROOT / "models" / "default").iterdir())
    with _small_disk(trial, shipped + (trial.size(120, 400) << 20)) as place:
        reserve = shutil.disk_usage(place).free - shipped - (trial.size(48, 200) << 20)
        with running(trial.system.way, place / "mien", MIEN_MIN_FREE_BYTES=str(reserve)) as system:
            return _fill(system, trial, reserve)


def _fill(system: System, trial: Trial, reserve: int) -> str:
    folder = new_folder(system)
    names = greys(folder, trial.size(300, 1500))
    job = submit(system, folder)
    wait_until_done(system, job, 1)
    lowest = _Lowest(system.mien.data)
    with system.client(retries=0) as client:
        drafts = [client.create_draft(options=WHOLE).id for _ in range(4)]
    refused: list[str] = []
    blob = os.urandom(3 << 20)

    def upload(draft: str, packed: bool) -> None:
        with system.client(retries=0) as client:
            for number in range(200):
                try:
                    if packed:
                        client.upload_archive(draft, _archive(system, blob, number))
                    else:
                        client.upload(draft, {f"{number}.png": blob})
                except MienError as error:
                    refused.append(f"{error.status} {error.code}")
                    return

    threads = [threading.Thread(target=upload, args=(draft, number % 2 == 1)) for number, draft in enumerate(drafts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    least = lowest.stop()
    assert refused == ["507 no_space"] * 4, refused
    finish(system, job)
    check(system, job, names)
    folder = new_folder(system)  # and one more, that begins now
    names = greys(folder, 100, "x")
    job = submit(system, folder)
    finish(system, job)
    check(system, job, names)
    # what the ledger and the logs write meanwhile is what the reserve is for
    assert least >= reserve - lowest.others, f"{(reserve - least) >> 10} KiB of the reserve were touched"
    arrived = sum(file.stat().st_size for file in (system.mien.data / "uploads").rglob("*") if file.is_file())
    with system.client() as client:
        for draft in drafts:
            client.delete(draft)
    return f"4 uploads, 2 of archives, refused with 507 after {arrived >> 20} MiB; reserve untouched; two jobs finished"


class _Lowest:
    """The least room that the disk ever had, and what else than uploads was written on it."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._before = self._other_bytes()
        self._least = shutil.disk_usage(data).free
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> int:
        """Look no more; gives the least."""
        self._stop.set()
        self._thread.join()
        self.others = max(self._other_bytes() - self._before, 0) + (1 << 20)
        return self._least

    def _look(self) -> None:
        while not self._stop.wait(0.005):
            self._least = min(self._least, shutil.disk_usage(self._data).free)

    def _other_bytes(self) -> int:
        total = 0
        for file in self._data.parent.rglob("*"):
            with contextlib.suppress(OSError):
                if file.is_file() and "uploads" not in file.parts:
                    total += file.stat().st_size
        return total


def _archive(system: System, blob: bytes, number: int) -> Path:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for part in range(2):
            packed.writestr(f"{number}-{part}.png", blob)
    # beside the small disk, not on it
    path = system.folder.parents[1] / f"archive-{threading.get_ident()}.zip"
    path.write_bytes(out.getvalue())
    return path


@contextlib.contextmanager
def _small_disk(trial: Trial, size: int) -> Iterator[Path]:
    """A disk of its own where root may mount one; else a folder, whose reserve is measured on the large disk."""
    place = trial.folder / "disk"
    place.mkdir()
    mounted = (
        shutil.which("mount") is not None
        and os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
        == 0
    )
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


@promise(13, "The share may go away")
def share_goes_away(trial: Trial) -> str:
    """The images' folder is renamed away, replaced by an empty one, and flaps, in mid-job."""
    system = trial.system
    folder = new_folder(system)
    names = greys(folder, trial.size(300, 2000))
    job = submit(system, folder)
    wait_until_done(system, job, 20)
    away = folder.with_name(f"{folder.name}-away")
    told = ""
    for round_ in range(trial.size(1, 3)):
        folder.rename(away)
        if round_ % 2:
            folder.mkdir()  # what an unmounted share leaves: its mount point
        system.wait_for(lambda: facts(system, job).notice_code == "source_away", "the job says what it waits for", 30)
        told = facts(system, job).notice
        time.sleep(3)  # longer than a lease
        assert facts(system, job).status in ("running", "expanding")
        if round_ % 2:
            folder.rmdir()
        away.rename(folder)
        at = done(system, job)
        system.wait_for(lambda at=at: done(system, job) > at, "the job goes on", 60)
    flaps = trial.size(30, 200)
    for _ in range(flaps):  # away for moments, between the looks
        if facts(system, job).status == "completed":
            break
        folder.rename(away)
        time.sleep(trial.dice.uniform(0, 0.02))
        away.rename(folder)
        time.sleep(trial.dice.uniform(0, 0.05))
    finish(system, job)
    check(system, job, names)
    assert str(folder) in told
    losses, _ = charged(system, job)
    assert losses == 0, "an attempt was charged"
    return f"away {trial.size(1, 3)} times for longer than a lease and {flaps} times for moments; 0 failed, 0 charged"


@promise(15, "The laptop may sleep")
def laptop_sleeps(trial: Trial) -> str:
    """Every process is frozen past all leases and woken, in any order."""
    system, naps = trial.system, trial.size(1, 4)
    folder = new_folder(system)
    names = greys(folder, trial.size(250, 1500))
    job = submit(system, folder)
    asleep = 0
    for _ in range(naps):
        wait_until_done(system, job, min(done(system, job) + 20, len(names)))
        processes = system.everything()
        asleep = max(asleep, len(processes))
        freeze(processes)
        time.sleep(trial.size(5, 8))  # more than two leases
        # control may be the first to wake, and look at the leases before a worker can renew any
        late = [p for worker in system.workers() for p in [worker, *worker.children(recursive=True)]]
        trial.dice.shuffle(processes)
        wake([process for process in processes if process not in late])
        time.sleep(0.8)
        wake(late)
    finish(system, job)
    check(system, job, names)
    assert charged(system, job) == (0, 0), f"charged: {charged(system, job)}"
    row = exact(system, job)
    assert row.failed == 0
    return f"{asleep} processes frozen {naps} times for more than two leases; 0 failed, 0 attempts charged"
