"""The embedded Mien: one per data folder, shared by commands, its parts started again, back after kill -9."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.embedded import broker
from mien.errors import UnavailableError
from tests.end_to_end.system import Mien, grey, job_in, kill, rows_of

pytestmark = pytest.mark.reliability

MakePhotos = Callable[[int], Path]


def assert_exact(mien: Mien, job: str, images: int) -> None:
    """One row per face, none lost and none twice."""
    rows = rows_of(mien.run("results", job))
    assert len(rows) == images
    assert len({row["file"] for row in rows}) == images
    assert {row["status"] for row in rows} == {"ok"}


def test_several_commands_share_one_system_and_the_last_stops_it(embedded: Mien, tmp_path: Path) -> None:
    folders = [tmp_path / f"photos{n}" for n in range(3)]
    for n, folder in enumerate(folders):
        for k in range(20 * (n + 1)):
            grey(folder / f"{k}.png", 10 * k % 256, (20 + k, 20 + n))
    outputs = [tmp_path / f"{n}.csv" for n in range(3)]
    threads = [
        threading.Thread(target=embedded.run, args=("classify", folder, "--faces", "whole", "--csv", output))
        for folder, output in zip(folders, outputs, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(rows_of(output)) for output in outputs] == [20, 40, 60]
    assert (embedded.files.logs / "web.log").read_text().count("Starting gunicorn") == 1
    assert not embedded.parts()
    assert embedded.files.read_running() is None


def test_up_serves_its_folders_and_a_second_one_is_refused(embedded: Mien, photos: Path) -> None:
    grey(photos / "a.png", 10)
    with embedded.up(photos):
        assert "runs for this data folder already" in embedded.run("up", code=1)
        embedded.run("classify", photos, "--faces", "whole")
        assert {part.part for part in embedded.parts()} == {"web", "worker", "control", "broker"}


@pytest.mark.long
def test_ctrl_c_in_classify_keeps_the_job_and_status_goes_on_with_it(
    embedded: Mien, many: Callable[[int], Path]
) -> None:
    photos = many(600)
    classify = embedded.start("classify", photos, "--csv", embedded.data.parent / "never.csv")
    assert classify.stdout is not None
    job = next(job_in(line) for line in classify.stdout if line.startswith("Job "))
    embedded.wait_for(lambda: embedded.counts(job)["ok"] > 0, "some images are done")
    classify.send_signal(signal.SIGINT)
    said, _ = classify.communicate(timeout=60)
    assert classify.returncode == 130, said
    assert f"mien status {job} --wait" in said
    assert not (embedded.data.parent / "never.csv").exists()
    assert not embedded.parts(), "the system that classify started has to end with it"

    embedded.run("status", job, "--wait")
    assert_exact(embedded, job, 600)


@pytest.mark.long
def test_a_part_that_is_killed_comes_back_and_nothing_is_lost(embedded: Mien, many: MakePhotos) -> None:
    photos = many(600)
    with embedded.up(photos):
        job = embedded.job_of(photos)
        done = 0
        for part in ("worker", "broker", "control", "web"):
            done = _wait_for_more(embedded, job, done)
            assert done < 600, f"the {part} has to be killed in mid-job"
            killed = embedded.part(part)
            kill(killed)
            assert embedded.part(part) != killed
        embedded.run("status", job, "--wait")
        assert_exact(embedded, job, 600)


def _wait_for_more(mien: Mien, job: str, than: int) -> int:
    """Wait until more images are done; gives how many."""
    mien.wait_for(lambda: _done(mien, job) > than, f"more than {than} images are done")
    return _done(mien, job)


def _done(mien: Mien, job: str) -> int:
    """Images done; while the front end is just being started again, none."""
    try:
        return mien.counts(job)["ok"]
    except UnavailableError:
        return -1


@pytest.mark.long
def test_after_kill_9_of_everything_the_next_up_goes_on(embedded: Mien, many: MakePhotos) -> None:
    photos = many(500)
    with embedded.up(photos) as first:
        job = embedded.job_of(photos)
        embedded.wait_for(lambda: embedded.counts(job)["ok"] > 0, "some images are done")
        embedded.kill_everything()
        first.wait(timeout=10)
    left = json.loads(embedded.run("status", job, "--json"))["counts"]
    assert left["pending"] > 0
    with embedded.up(photos):
        embedded.run("status", job, "--wait")
        assert_exact(embedded, job, 500)


@pytest.mark.long
def test_the_parts_leave_when_their_supervisor_is_killed(embedded: Mien, photos: Path) -> None:
    with embedded.up(photos) as up:
        kill(embedded.part("control").parent())  # type: ignore[arg-type]
        up.wait(timeout=10)
        embedded.wait_for(lambda: not embedded.parts(), "every part has left")
        embedded.wait_for(lambda: not embedded.files.broker_url.exists(), "the broker's record is gone")


@pytest.mark.long
def test_a_broker_left_alive_is_taken_over(embedded: Mien, photos: Path) -> None:
    grey(photos / "a.png", 10)
    with embedded.up(photos):
        left = embedded.part("broker")
        embedded.kill_everything(but="broker")
        socket = broker.recorded_socket(embedded.files)
        assert socket is not None
        assert broker.wait_until_answering(socket)
        with embedded.up(photos):
            assert embedded.part("broker").pid == left.pid
            embedded.run("classify", photos, "--faces", "whole")


@pytest.mark.long
def test_a_command_whose_system_is_killed_starts_another_and_goes_on(
    embedded: Mien, many: Callable[[int], Path]
) -> None:
    photos = many(200)
    classify = embedded.start("classify", photos, "--csv", embedded.data.parent / "out.csv")
    assert classify.stdout is not None
    job = next(job_in(line) for line in classify.stdout if line.startswith("Job "))
    embedded.wait_for(lambda: embedded.counts(job)["ok"] > 0, "some images are done")
    embedded.kill_everything()
    said, _ = classify.communicate(timeout=100)
    assert classify.returncode == 0, said
    assert len(rows_of(embedded.data.parent / "out.csv")) == 200


@pytest.mark.long
def test_when_the_only_user_is_killed_its_system_ends_by_itself(embedded: Mien, many: MakePhotos) -> None:
    classify = embedded.start("classify", many(400))
    assert classify.stdout is not None
    next(line for line in classify.stdout if line.startswith("Job "))
    classify.kill()
    classify.wait()
    embedded.wait_for(lambda: not embedded.parts() and embedded.files.read_running() is None, "the system has ended")
    classify.stdout.close()


@pytest.mark.long
def test_questions_are_answered_while_nothing_runs(embedded: Mien, photos: Path) -> None:
    grey(photos / "a.png", 10)
    embedded.run("classify", photos, "--faces", "whole", "--csv", embedded.data.parent / "a.csv")
    before = (embedded.files.logs / "web.log").read_text()
    assert "completed" in embedded.run("jobs")
    assert embedded.run("workers", "--json").strip() == "[]"
    assert (embedded.files.logs / "web.log").read_text() == before
