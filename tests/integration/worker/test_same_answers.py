"""The same image gets the same answer in every batch size, order and number of engines; engines are light."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest

from mien.int8 import int8_instructions
from mien.model_folder import load_model
from mien.resources import resource
from mien.stage_times import ENGINE_TIME_FIELDS
from worker.messages import EngineSpec, ImageResult, ImageTask
from worker.stages import Stages
from worker.supervisor import EnginePool

pytestmark = pytest.mark.long

SAMPLES = resource("samples")
COPIES = 3
BOUND = 1e-3


@cache  # the revision is a hash over the whole folder
def spec(precision: str = "fp32") -> EngineSpec:
    folder = resource("models/default")
    return EngineSpec(
        model_folder=str(folder), model_revision=load_model(folder).revision, device="cpu", precision=precision,
        faces="detect", detect_size=640, min_face_score=0.7, min_face=0, max_pixels=200_000_000,
        max_file_bytes=1 << 29,
    )  # fmt: skip


def tasks() -> list[ImageTask]:
    """The samples, each several times, under keys of their own."""
    names = sorted(path.name for path in SAMPLES.iterdir() if path.suffix in (".jpg", ".png", ".webp", ".avif"))
    return [
        ImageTask(copy * len(names) + number, os.fsencode(SAMPLES), name.encode())
        for copy in range(COPIES)
        for number, name in enumerate(names)
    ]


def in_batches(batch: int, wanted: Sequence[ImageTask], precision: str = "fp32") -> list[ImageResult]:
    stages = Stages(device="cpu", batch=batch, sign=lambda: None)
    found: list[ImageResult] = []
    for first in range(0, len(wanted), batch):
        found += stages.run(spec(precision), wanted[first : first + batch], begin=lambda _: None)
    return found


def assert_same(found: Sequence[ImageResult], expected: dict[int, ImageResult]) -> None:
    assert len(found) == len(expected)
    for result in found:
        other = expected[result.key]
        assert (result.outcome, len(result.faces)) == (other.outcome, len(other.faces))
        for face, same in zip(result.faces, other.faces, strict=True):
            assert (face.x, face.y, face.width, face.height) == (same.x, same.y, same.width, same.height)
            np.testing.assert_allclose(face.probabilities, same.probabilities, atol=BOUND)


@pytest.fixture(scope="module")
def alone() -> dict[int, ImageResult]:
    """Every image by itself."""
    found = {result.key: result for result in in_batches(1, tasks())}
    assert sum(len(result.faces) for result in found.values()) >= 4 * COPIES
    assert {result.outcome for result in found.values()} == {"ok", "no_face"}
    return found


@pytest.mark.parametrize("batch", [2, 5, 8, 32])
def test_in_every_batch_size_and_order(alone: dict[int, ImageResult], batch: int) -> None:
    wanted = tasks()
    random.Random(batch).shuffle(wanted)
    assert_same(in_batches(batch, wanted), alone)


@pytest.mark.skipif(int8_instructions() is None, reason="this processor takes no jobs in int8")
def test_in_int8_too_on_one_processor() -> None:
    wanted = tasks()
    expected = {result.key: result for result in in_batches(1, wanted, "int8")}
    random.Random(1).shuffle(wanted)
    assert_same(in_batches(8, wanted, "int8"), expected)


@pytest.mark.parametrize("engines", [1, 3])
def test_with_any_number_of_engines(alone: dict[int, ImageResult], engines: int) -> None:
    wanted = tasks()
    random.Random(engines).shuffle(wanted)
    pool = EnginePool(engines)
    pool.start()
    try:
        results = pool.classify(spec(), wanted)
        processes = [psutil.Process(engine.pid) for engine in pool.engines() if engine.ready]
        for process in processes:
            _assert_light(process)
    finally:
        pool.stop()
    assert processes
    assert [result.key for result in results] == [task.key for task in wanted]
    assert_same(results, alone)


def _assert_light(process: psutil.Process) -> None:
    """It has no torch in its memory, no thread that computes beside the main one, and libraries that know it."""
    # the main thread, the one that reads the pipe, and one that onnxruntime starts on import and leaves asleep
    assert process.num_threads() <= 3
    spent = sorted((thread.user_time + thread.system_time for thread in process.threads()), reverse=True)
    assert sum(spent[1:]) < 0.25 * spent[0]
    known = process.environ()
    assert {known[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"1"}
    if sys.platform == "linux":
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        assert "onnxruntime" in mapped
        assert not any(name in mapped for name in ("libtorch", "safetensors", "tokenizers", "cv2"))


def test_the_times_of_the_stages_add_up_to_the_time_that_passed() -> None:
    stages = Stages(device="cpu", batch=8, sign=lambda: None)
    stages.classifier(spec())
    start, worked_before = time.perf_counter(), time.thread_time()
    results = stages.run(spec(), tasks(), begin=lambda _: None)
    passed, worked = time.perf_counter() - start, time.thread_time() - worked_before
    sums = {name: sum(getattr(result, name) for result in results) for name in ENGINE_TIME_FIELDS}
    assert 0.5 * passed < sum(sums.values()) <= passed  # on a busy machine much passes between the stages
    assert 0.9 * worked < sum(spent for name, spent in sums.items() if "wait" not in name) <= worked
    for stage in ("read", "decode", "detect", "classify"):
        assert sum(getattr(result, f"{stage}_s") for result in results) > 0
    assert all(getattr(result, name) >= 0 for result in results for name in ENGINE_TIME_FIELDS)
