"""Promises 7 and 12: the device that runs out of memory; a backup in mid-job that goes on elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mien.backup import back_up
from mien.models import ModelStore, load_model
from mien.settings import Settings
from tests.reliability.jobs import check, exact, facts, finish, greys, new_folder, rows, submit, wait_until_done
from tests.reliability.promises import Trial, promise
from tests.reliability.systems import KINDS, System
from tests.support.machine import ROOT
from tests.support.torch_model import make_torch_model
from tests.support.uploads import zipped
from worker.messages import EngineSpec, ImageTask


@promise(7, "The device may run out of memory", ways=("embedded",))
def device_memory(trial: Trial) -> str:
    """A device that holds four crops at once and is given 64: the batch halves until it fits; no image is lost."""
    from worker.device_pool import DevicePool  # torch is not everywhere

    count = trial.size(60, 1000)
    folder = trial.folder / "full"
    names = greys(folder, count, "full")
    model = load_model(make_torch_model(trial.folder / "model"))
    spec = EngineSpec(str(model.folder), model.revision, "cuda", "fp32", "whole", 320, 0.7, 0, 10_000_000, 1 << 20)
    tasks = [ImageTask(key, bytes(folder), name.encode()) for key, name in enumerate(names)]
    with faults("device_full4:*full*"):
        pool = DevicePool(["cpu"], 2, batch=64)
        pool.start()
        try:
            results = pool.classify(spec, tasks)
            devices = {device.pid for device in pool.devices()}
        finally:
            pool.stop()
    assert [result.key for result in results] == list(range(count))
    assert {result.outcome for result in results} == {"ok"}, "an image was lost to the device's memory"
    return f"{count:,} images, a device that refuses more than 4 at once: {count:,} ok, {len(devices)} engine"


@contextmanager
def faults(asked: str) -> Iterator[None]:
    """Ask the engines that are started meanwhile for these faults."""
    before = os.environ.get("MIEN_FAULTS")
    os.environ["MIEN_FAULTS"] = asked
    try:
        yield
    finally:
        os.environ.pop("MIEN_FAULTS")
        if before is not None:
            os.environ["MIEN_FAULTS"] = before


@promise(12, "Backups restore")
def backups_restore(trial: Trial) -> str:
    """``mien backup`` in mid-job, of a folder and of uploads, finishes both elsewhere; what was deleted stays so."""
    system, count = trial.system, trial.size(400, 3000)
    folder = new_folder(system)
    names = greys(folder, count)
    uploaded = {name: (folder / name).read_bytes() + b"uploaded" for name in names[: count // 4]}
    archive = system.folder / "uploaded.zip"
    archive.write_bytes(zipped(uploaded))
    with system.client() as client:
        draft = client.create_draft(options={"faces": "whole"}).id
        client.upload_archive(draft, archive)
        client.submit(draft)
        doomed = submit(system, folder)
        job = submit(system, folder)
        wait_until_done(system, job, 20)
        target = trial.folder / ("backup.tar" if trial.full else "backup")
        started = time.monotonic()
        _back_up(trial, target)
        took = time.monotonic() - started
        assert facts(system, job).status in ("running", "expanding"), "the backup has to be made in mid-job"
        # deleted after the backup: a restore must not bring it back
        client.wait_for_receipt(client.delete(doomed).id)
        client.wait_for_receipt(client.delete_images(job, names[0]).id)
    for other in (job, draft):
        finish(system, other, seconds=240)
    answers = _answers(system, job)
    uploads = system.mien.data / "uploads"
    hidden = uploads.rename(uploads.with_name("uploads-away"))  # elsewhere there is only what was restored
    try:
        left = _restored(trial, target, doomed, {job: names[1:], draft: list(uploaded)}, answers)
    finally:
        if uploads.exists():  # control looked there meanwhile
            shutil.rmtree(uploads)
        hidden.rename(uploads)
    return (
        f"{count:,} images of a folder and {len(uploaded):,} uploads backed up in mid-job in {took:.1f} s; restored "
        f"elsewhere with {left:,} still to do: complete, equal to the original; 2 later deletions carried out again"
    )


def _back_up(trial: Trial, target: Path) -> None:
    """By the command in full size; the short form has too few images for the time that a command takes to start."""
    mien = trial.system.mien
    if trial.full:
        assert json.loads(mien.run("backup", target, "--json"))["uploads"] > 0
        return
    settings = Settings(data_dir=mien.data, database_url=mien.settings.get("MIEN_DATABASE_URL", ""), model="tiny")
    back_up(trial.system.db, settings, ModelStore(settings.models, ROOT / "models" / "default"), target)


def _restored(
    trial: Trial, backup: Path, doomed: str, wanted: dict[str, list[str]], answers: dict[str, list[str]]
) -> int:
    """Bring the backup up on another Mien and let it finish; gives the images it still had to do."""
    system = trial.system
    other = KINDS[system.way](trial.folder / "other")
    other.mien.settings["MIEN_ROOTS"] = str(system.folder)
    other.prepare()
    # the erasure log lies apart from the database, and outlives it
    log = system.mien.data / "erasures.jsonl"
    said = json.loads(other.mien.run("restore", backup, "--erasures", log, "--json"))
    assert said["erased_again"] == 2, said
    again = other.mien.run("restore", backup, code=1)
    assert "There are jobs in this ledger already" in again
    if (key := system.mien.settings.get("MIEN_API_KEY")) is not None:
        other.mien.settings["MIEN_API_KEY"] = key  # the keys came along
    other.begin()
    try:
        first = next(iter(wanted))
        left = int(facts(other, first).pending)
        for job, names in wanted.items():
            finish(other, job, seconds=240)
            check(other, job, names)
        assert left > 0, "nothing was left to do"
        assert _answers(other, first) == answers
        shown = {job["id"] for job in json.loads(other.mien.run("jobs", "--json"))}
        assert doomed not in shown, "a deleted job came back"
    finally:
        other.end()
    return left


def _answers(system: System, job: str) -> dict[str, list[str]]:
    exact(system, job)
    return {row["file"]: [value for name, value in row.items() if name.startswith("p_")] for row in rows(system, job)}
