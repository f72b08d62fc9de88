"""What callers may rely on: models that are not what they say, abort, stop, urgent images, progress, bad files."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.errors import ModelError
from tests.reliability.engines import check_all_exact, make_spec, make_tasks, runs, wait_for
from tests.support.tiny_model import make_tiny_model
from worker.messages import EngineSpec
from worker.supervisor import Aborted, EnginePool

pytestmark = [pytest.mark.reliability, pytest.mark.long]


def test_a_model_that_is_not_the_one_asked_for_is_refused(tmp_path: Path, folder: Path, pool: EnginePool) -> None:
    asked = make_spec(make_tiny_model(tmp_path / "model"))
    good = make_spec(make_tiny_model(tmp_path / "other"))
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace("dark", "gloomy"))
    errors: list[ModelError] = []

    def ask() -> None:
        with pytest.raises(ModelError) as caught:
            pool.classify(asked, make_tasks(folder))
        errors.append(caught.value)

    asker = threading.Thread(target=ask)
    asker.start()
    check_all_exact(pool.classify(good, make_tasks(folder)))
    asker.join(20)
    assert errors[0].code == "model_changed"


def test_abort_is_quick_and_drops_the_rest(spec: EngineSpec, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_FAULTS", "slow:*")
    pool = EnginePool(1)
    pool.start()
    try:
        pool.classify(spec, make_tasks(folder)[:1])
        abort = threading.Event()
        threading.Timer(0.2, abort.set).start()
        started = time.monotonic()
        with pytest.raises(Aborted):
            pool.classify(spec, make_tasks(folder), abort=abort)
        assert time.monotonic() - started < 1.0
        check_all_exact(pool.classify(spec, make_tasks(folder)[:20]))
    finally:
        pool.stop()


def test_stop_ends_calls_under_way_and_every_engine(spec: EngineSpec, folder: Path, pool: EnginePool) -> None:
    caught: list[BaseException] = []

    def call() -> None:
        try:
            pool.classify(spec, make_tasks(folder) * 50)
        except Aborted as error:
            caught.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_for(lambda: any(engine.images for engine in pool.engines()))
    pids = [engine.pid for engine in pool.engines()]
    pool.stop()
    caller.join(5)
    assert len(caught) == 1
    assert not any(runs(pid) for pid in pids)
    with pytest.raises(Aborted):
        pool.classify(spec, make_tasks(folder))


def test_calls_share_the_engines_and_urgent_images_overtake(
    spec: EngineSpec, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_FAULTS", "slow:*")
    pool = EnginePool(1)
    pool.start()
    ends: dict[str, float] = {}

    def call(name: str, count: int, interactive: bool) -> None:
        check_all_exact(pool.classify(spec, make_tasks(folder)[:count], interactive=interactive))
        ends[name] = time.monotonic()

    try:
        pool.classify(spec, make_tasks(folder)[:1])
        calls = [threading.Thread(target=call, args=("bulk", 120, False))]
        calls[0].start()
        time.sleep(0.3)
        calls.append(threading.Thread(target=call, args=("small", 16, False)))
        calls.append(threading.Thread(target=call, args=("urgent", 1, True)))
        for thread in calls[1:]:
            thread.start()
        for thread in calls:
            thread.join(60)
    finally:
        pool.stop()
    assert ends["urgent"] < ends["small"] < ends["bulk"]


def test_progress_counts_up_to_the_number_of_images(spec: EngineSpec, folder: Path, pool: EnginePool) -> None:
    seen: list[int] = []
    pool.classify(spec, make_tasks(folder), on_progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 120


def test_bad_files_fail_alone(spec: EngineSpec, tmp_path: Path, pool: EnginePool) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(np.full((40, 50, 3), 0, np.uint8)).save(good)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "huge.bin.png").write_bytes(b"\0" * ((1 << 20) + 1))
    Image.new("L", (4000, 4000)).save(tmp_path / "wide.png")
    (tmp_path / "folder.png").mkdir()
    outside = tmp_path.parent / "outside.png"
    good.rename(outside)
    Image.open(outside).save(good)
    (tmp_path / "link.png").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe.png")
    names = "empty.jpg text.jpg cut.png huge.bin.png wide.png folder.png link.png pipe.png gone.png ../x.png good.png"
    results = pool.classify(spec, make_tasks(tmp_path, names.split()))
    assert [result.error_code for result in results] == [
        "empty_file", "not_an_image", "truncated", "file_too_large", "too_large", "not_a_file", "outside_root",
        "not_a_file", "missing", "outside_root", None,
    ]  # fmt: skip
    assert all(result.error for result in results[:-1])
    assert results[-1].outcome == "ok"
