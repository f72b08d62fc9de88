"""Promise 4: a crash at each named point of the work."""

from __future__ import annotations

import io
import secrets
import zipfile
from contextlib import suppress

import requests
import sqlalchemy as sa
from PIL import Image

from mien.errors import MienError
from mien.schema import jobs, uploads
from tests.reliability.jobs import (
    check,
    done,
    exact,
    facts,
    finish,
    greys,
    is_gone,
    new_folder,
    submit,
    wait_until_done,
)
from tests.reliability.promises import Trial, promise
from tests.reliability.systems import System

WORKER_POINTS = ("after_lease", "after_decode", "after_classify", "before_commit", "in_commit", "after_commit")


@promise(4, "Any step may crash")
def any_step_may_crash(trial: Trial) -> str:
    """At each named point the process is killed; what comes after goes on, and no snapshot was ever wrong."""
    system = trial.system
    before = system.watcher.snapshots
    crashes = sum(
        step(system, trial)
        for step in (_crash_workers, _crash_expansion, _crash_cancelling, _crash_retrying_and_deleting, _crash_web)
    )
    return f"{crashes} crashes at {crashes} named points; {system.watcher.snapshots - before:,} snapshots, all exact"


def _crash_at(system: System, point: str, seconds: float = 60) -> None:
    system.arm(point)
    wait_for_crash(system, point, seconds)


def wait_for_crash(system: System, point: str, seconds: float = 60) -> None:
    system.wait_for(lambda: not system.is_armed(point), f"a crash at {point}", seconds)


def _crash_workers(system: System, trial: Trial) -> int:
    folder = new_folder(system)
    names = greys(folder, trial.size(250, 1500))
    job = submit(system, folder)
    for point in WORKER_POINTS:
        wait_until_done(system, job, done(system, job) + 1)
        _crash_at(system, point)
    finish(system, job)
    check(system, job, names)
    return len(WORKER_POINTS)


def _crash_expansion(system: System, _trial: Trial) -> int:
    folder = new_folder(system)
    names = greys(folder, 1100, "x")  # two slices of a walk
    system.arm("expanding")
    job = submit(system, folder)
    wait_for_crash(system, "expanding")
    finish(system, job)
    check(system, job, names)
    return 1


def _crash_cancelling(system: System, _trial: Trial) -> int:
    folder = new_folder(system)
    names = greys(folder, 600)
    job = submit(system, folder)
    wait_until_done(system, job, 1)
    system.arm("cancelling")
    with system.client() as client:
        client.cancel(job)
    wait_for_crash(system, "cancelling")
    finish(system, job, "cancelled")
    row = exact(system, job)
    assert row.ok + row.cancelled == row.total <= len(names)
    assert row.cancelled > 0
    return 1


def _crash_retrying_and_deleting(system: System, _trial: Trial) -> int:
    folder = new_folder(system)
    names = greys(folder, 120, "x")
    broken = names[::10]
    good = (folder / names[1]).read_bytes()
    for name in broken:
        (folder / name).write_bytes(b"no image")
    job = submit(system, folder)
    finish(system, job)
    check(system, job, names, dict.fromkeys(broken, ""))
    for number, name in enumerate(broken):
        (folder / name).write_bytes(good + b"mended %d" % number)
    system.arm("retrying")
    with system.client() as client:
        client.retry(job)
        wait_for_crash(system, "retrying")
        system.wait_for(lambda: facts(system, job).ok == len(names), "the mended images are classified")
        finish(system, job)
        check(system, job, names)
        system.arm("erasing")
        receipt = client.delete_images(job, *names[:5])
        wait_for_crash(system, "erasing")
        assert client.wait_for_receipt(receipt.id).deleted.images == 5
        check(system, job, names[5:])
        system.arm("deleting")
        receipt = client.delete(job)
        wait_for_crash(system, "deleting")
        system.arm("after_delete")
        wait_for_crash(system, "after_delete")
        assert client.wait_for_receipt(receipt.id).finished_at is not None
        assert is_gone(system, job)
    assert not system.watcher.take_defects()
    return 4


def _crash_web(system: System, _trial: Trial) -> int:
    folder = new_folder(system)
    names = greys(folder, 40, "x")
    key = secrets.token_hex(8)
    system.arm("after_submit")
    with suppress(MienError), system.client(retries=0) as client:
        client.submit_folder(folder, faces="whole", idempotency_key=key)
    wait_for_crash(system, "after_submit")
    found: list[str] = []

    def again() -> bool:
        with system.client() as client:
            found.append(client.submit_folder(folder, faces="whole", idempotency_key=key).id)
        return True

    system.wait_for(again, "the same answer")
    finish(system, found[0])
    check(system, found[0], names)
    with system.db.read() as connection:
        made = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.idempotency_key == key)
        assert connection.execute(made).scalar_one() == 1

    system.arm("exporting")
    with suppress(requests.RequestException, MienError), system.client(retries=0) as client:
        list(client.results(found[0]))
        client.download(found[0], "results.csv", io.BytesIO())
    wait_for_crash(system, "exporting")
    check(system, found[0], names)
    _crash_unpacking(system)
    return 3


def _crash_unpacking(system: System) -> None:
    archive = system.folder / f"{secrets.token_hex(4)}.zip"
    files = {f"{number}.png": small_png(number) for number in range(300)}
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    with system.client(retries=0) as client:
        draft = client.create_draft(options={"faces": "whole"}).id
        system.arm("unpacking")
        with suppress(MienError):
            client.upload_archive(draft, archive)
    wait_for_crash(system, "unpacking")

    def again() -> bool:
        with system.client() as client:
            client.upload_archive(draft, archive)
            client.submit(draft)
        return True

    system.wait_for(again, "the archive is uploaded again")
    finish(system, draft)
    check(system, draft, list(files))
    stored = [path for path in (system.mien.data / "uploads" / draft).rglob("*") if path.is_file()]
    with system.db.read() as connection:
        kept = sa.select(sa.func.count()).where(uploads.c.job_id == facts(system, draft).id)
        assert connection.execute(kept).scalar_one() == len(stored) == len(files), "a file without a row was left"


def small_png(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (30, 20), number % 256).save(out, "PNG")
    return out.getvalue() + secrets.token_bytes(8)
