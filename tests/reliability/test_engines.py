"""Engines are killed, crash, hang and swell: every image still gets exactly one answer, and the right one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from mien.models import load_model
from tests.reliability.engines import check_all_exact, make_spec, make_tasks, runs, wait_for
from tests.support.machine import ROOT
from tests.support.tiny_model import expected
from worker.engine_process import EngineProcess
from worker.messages import EngineSpec, ImageResult
from worker.supervisor import EnginePool, EngineStartError

pytestmark = [pytest.mark.reliability, pytest.mark.long]


def test_kill_minus_9_of_random_engines_fails_nobody(
    spec: EngineSpec, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_FAULTS", "slow:*")
    pool = EnginePool(2)
    pool.start()
    done = threading.Event()
    kills = 0

    def kill_now_and_then() -> None:
        nonlocal kills
        dice = random.Random(7)
        while not done.wait(0.4) and kills < 6:  # a busy machine starts engines no faster than they are killed
            ready = [engine for engine in pool.engines() if engine.ready]
            if ready:
                os.kill(dice.choice(ready).pid, signal.SIGKILL)
                kills += 1

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        results = pool.classify(spec, make_tasks(folder))
    finally:
        done.set()
        killer.join()
        pool.stop()
    assert kills >= 2
    check_all_exact(results)


def test_exactly_the_poisonous_images_fail(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_FAULTS", "crash:*crash*,abort:*abort*,exit:*exit*,hang:*hang*,oom:*oom*")
    poison = {7: "crash", 8: "abort", 21: "exit", 22: "hang", 35: "oom"}
    names = [f"{i:03}{poison.get(i, '')}.png" for i in range(40)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((40, 50, 3), 2 * i, np.uint8)).save(tmp_path / name)
    pool = EnginePool(2, image_timeout_s=8.0, max_rss_bytes=400 << 20)  # on a busy machine memory fills slowly
    pool.start()
    try:
        results = pool.classify(make_spec(model_folder), make_tasks(tmp_path, names))
    finally:
        pool.stop()
    failed = {result.key: result.error_code for result in results if result.outcome == "failed"}
    crashed = "engine_crashed"
    assert failed == {7: crashed, 8: crashed, 21: crashed, 22: "timeout", 35: "out_of_memory"}
    assert "SIGSEGV" in (results[7].error or "")
    assert "SIGABRT" in (results[8].error or "")
    assert "exit code 3" in (results[21].error or "")
    for i, result in enumerate(results):
        if i not in poison:
            np.testing.assert_allclose(result.faces[0].probabilities, expected(2 * i / 255), atol=1e-4)


def test_a_lone_image_that_is_killed_twice_from_outside_is_not_blamed(
    model_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_FAULTS", "slow:*")
    pool = EnginePool(1)
    pool.start()
    kills = 0
    try:
        wait_for(lambda: pool.engines() and pool.engines()[0].ready)
        results: list[ImageResult] = []
        caller = threading.Thread(
            target=lambda: results.extend(pool.classify(make_spec(model_folder), make_tasks(folder)[:5], alone=True))
        )
        caller.start()
        while kills < 2:
            busy = [engine for engine in pool.engines() if engine.ready and engine.images]
            if busy:
                os.kill(busy[0].pid, signal.SIGKILL)
                kills += 1
                wait_for(lambda dead=busy[0].pid: dead not in [engine.pid for engine in pool.engines()])
        caller.join(30)
    finally:
        pool.stop()
    assert len(results) == 5
    check_all_exact(results)


def test_a_stopped_engine_is_replaced_and_fails_nobody(spec: EngineSpec, folder: Path, pool: EnginePool) -> None:
    wait_for(lambda: len(pool.engines()) == 2 and all(engine.ready for engine in pool.engines()))
    frozen = pool.engines()[0].pid
    os.kill(frozen, signal.SIGSTOP)
    check_all_exact(pool.classify(spec, make_tasks(folder)))
    assert frozen not in [engine.pid for engine in pool.engines()]


def test_engines_ignore_the_signals_of_a_terminal(spec: EngineSpec, folder: Path, pool: EnginePool) -> None:
    wait_for(lambda: len(pool.engines()) == 2 and all(engine.ready for engine in pool.engines()))
    before = {engine.pid for engine in pool.engines()}
    for pid in before:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    check_all_exact(pool.classify(spec, make_tasks(folder)))
    assert {engine.pid for engine in pool.engines()} == before


def test_an_engine_that_grew_is_replaced_between_images(spec: EngineSpec, folder: Path) -> None:
    probe = EnginePool(1)
    probe.start()
    probe.classify(spec, make_tasks(folder)[:1])
    resident = probe.engines()[0].resident_bytes
    probe.stop()
    assert resident is not None
    pool = EnginePool(1, max_rss_bytes=int(resident * 0.8))  # every engine is too large as soon as it has worked
    pool.start()
    try:
        pids = set()
        results = pool.classify(
            spec, make_tasks(folder)[:32], on_progress=lambda _: pids.update(e.pid for e in pool.engines())
        )
    finally:
        pool.stop()
    check_all_exact(results)
    assert len(pids) >= 3


ORPHAN_SCRIPT = """
import sys, threading, time
from worker.engine_process import EngineProcess
from worker.messages import EngineSpec, ImageTask
from worker.supervisor import EnginePool
folder, revision, images = sys.argv[1:]
pool = EnginePool(2, image_timeout_s=60)
pool.start()
spec = EngineSpec(folder, revision, "cpu", "fp32", "whole", 320, 0.7, 0, 10_000_000, 1 << 20)
tasks = [ImageTask(i, images.encode(), f"{i:03}.png".encode()) for i in range(100)]
threading.Thread(target=pool.classify, args=(spec, tasks), daemon=True).start()
while not all(e.ready and e.images for e in pool.engines()) or len(pool.engines()) < 2:
    time.sleep(0.01)
time.sleep(0.3)
print(*(e.pid for e in pool.engines()), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("fault", ["slow", "hang"])
def test_no_engine_outlives_a_parent_that_is_killed(model_folder: Path, folder: Path, fault: str) -> None:
    if fault == "hang" and sys.platform != "linux":
        pytest.skip("only Linux ends a process that holds the interpreter together with its parent")
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN_SCRIPT, str(model_folder), load_model(model_folder).revision, str(folder)],
        cwd=ROOT,
        env={**os.environ, "MIEN_FAULTS": f"{fault}:*"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        engines = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(engines) == 2
    assert all(psutil.pid_exists(pid) for pid in engines)
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(runs(pid) for pid in engines), 5)


def test_an_engine_that_says_nonsense_is_ended_and_replaced(
    spec: EngineSpec, folder: Path, pool: EnginePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = EnginePool._on_message
    lies = iter(
        [{"kind": "begin"}, {"kind": "results", "results": [{"key": "?"}, 7]}]
    )  # fields are missing, or of the wrong type

    def hear(self: EnginePool, process: EngineProcess, content: dict[str, Any]) -> None:
        if content["kind"] == "begin":
            content = next(lies, content)
        honest(self, process, content)

    wait_for(lambda: len(pool.engines()) == 2 and all(engine.ready for engine in pool.engines()))
    before = {engine.pid for engine in pool.engines()}
    for slot in pool._slots:
        assert slot.process is not None
        slot.process._on_message = hear.__get__(pool)
    check_all_exact(pool.classify(spec, make_tasks(folder)))
    wait_for(lambda: len(before & {engine.pid for engine in pool.engines()}) <= 1)


def test_engines_that_cannot_start_say_why(
    spec: EngineSpec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libfoo.so.1 is missing')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    pool = EnginePool(2)
    pool.start()
    try:
        with pytest.raises(EngineStartError, match=r"libfoo\.so\.1 is missing"):
            pool.classify(spec, make_tasks(folder))
        (tmp_path / "onnxruntime.py").unlink()  # mended: the pool goes on by itself
        check_all_exact(_once_it_starts(pool, spec, folder))
    finally:
        pool.stop()


def _once_it_starts(pool: EnginePool, spec: EngineSpec, folder: Path) -> list[ImageResult]:
    """An engine that was starting before the mend may still fail; the one after it does not."""
    for _ in range(5):
        with contextlib.suppress(EngineStartError):
            return pool.classify(spec, make_tasks(folder))
    raise AssertionError("the engines do not start after the mend")
