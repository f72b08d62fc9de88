"""Device engines and their decoding processes, the CPU in a GPU's place: every image gets one answer, the right one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mien.errors import ModelError
from mien.models import load_model
from tests.support.torch_model import make_torch_model
from worker.messages import EngineSpec, ImageResult, ImageTask
from worker.supervisor import EngineStartError

pytest.importorskip("torch")
from worker.crops import crop_whole
from worker.device_pool import DevicePool
from worker.torch_classifier import TorchClassifier

# every engine that is started again imports torch, which takes long where others work as well
pytestmark = [pytest.mark.reliability, pytest.mark.torch, pytest.mark.timeout(600)]

COUNT = 48
POISON = {5: "crash", 11: "hang", 20: "full", 21: "full", 30: "broken"}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_torch_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that all look different, some with names that faults are asked for."""
    place = tmp_path_factory.mktemp("images")
    dice = np.random.default_rng(3)
    for i in range(COUNT):
        coarse = Image.fromarray(dice.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((60, 50), Image.Resampling.BICUBIC).save(place / f"{i:03}{POISON.get(i, '')}.png")
    return place


@pytest.fixture(scope="module")
def expected(model_folder: Path, folder: Path) -> npt.NDArray[np.float32]:
    """What one fp32 classifier in this process answers."""
    from mien.images import decode

    model = load_model(model_folder)
    images = [decode(path.read_bytes()) for path in sorted(folder.iterdir())]
    return TorchClassifier(model, "cpu").classify([crop_whole(image, model.crop, model.input) for image in images])


def make_spec(model_folder: Path, **changes: object) -> EngineSpec:
    model = load_model(model_folder)
    values = {
        "model_folder": str(model.folder), "model_revision": model.revision, "device": "cuda", "precision": "fp32",
        "faces": "whole", "detect_size": 320, "min_face_score": 0.7, "min_face": 0, "max_pixels": 10_000_000,
        "max_file_bytes": 1 << 20,
    } | changes  # fmt: skip
    return EngineSpec(**values)  # type: ignore[arg-type]


def make_tasks(folder: Path) -> list[ImageTask]:
    return [ImageTask(i, os.fsencode(folder), os.fsencode(p.name)) for i, p in enumerate(sorted(folder.iterdir()))]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevicePool]:
    """Two devices, two decoding processes; every image takes 20 ms to read."""
    before = os.environ.get("MIEN_FAULTS")
    os.environ["MIEN_FAULTS"] = "slow:*"
    pool = DevicePool(["cpu", "cpu"], 2, batch=8)
    pool.start()
    yield pool
    pool.stop()
    os.environ.pop("MIEN_FAULTS")
    if before is not None:
        os.environ["MIEN_FAULTS"] = before


def check(results: list[ImageResult], expected: npt.NDArray[np.float32], failed: tuple[int, ...] = ()) -> None:
    assert [result.key for result in results] == list(range(len(results)))
    for i, result in enumerate(results):
        if i not in failed:
            assert result.outcome == "ok", result
            np.testing.assert_allclose(result.faces[0].probabilities, expected[i], atol=1e-4)


def wait_for_devices(pool: DevicePool, count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(device.ready for device in pool.devices()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_devices_answer_as_one_classifier_does(
    pool: DevicePool,
    model_folder: Path,
    folder: Path,
    expected: npt.NDArray[np.float32],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wait_for_devices(pool, 2)
    with caplog.at_level("INFO", "worker.device_pool"):
        results = pool.classify(make_spec(model_folder), make_tasks(folder))
    check(results, expected)
    assert all(result.classify_s > 0 and result.read_s > 0 for result in results)
    assert caplog.text.count("small-vit in fp32: batches of up to 8") == 2  # each device has loaded it for its share
    check(pool.classify(make_spec(model_folder), make_tasks(folder)[::-1])[::-1], expected)  # another order


def test_kill_minus_9_of_device_engines_and_decoders_fails_nobody(
    pool: DevicePool, model_folder: Path, folder: Path, expected: npt.NDArray[np.float32]
) -> None:
    wait_for_devices(pool, 2)
    killed: list[int] = []

    def kill() -> None:
        time.sleep(0.1)
        for pid in (pool.devices()[0].pid, pool.engines()[1].pid):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    results = pool.classify(make_spec(model_folder), make_tasks(folder))
    killer.join()
    check(results, expected)
    assert len(killed) == 2
    wait_for_devices(pool, 2)
    assert not set(killed) & {engine.pid for engine in [*pool.engines(), *pool.devices()]}


def test_files_that_are_no_images_and_urgent_ones(pool: DevicePool, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    Image.new("RGB", (700, 500), (90, 90, 90)).save(tmp_path / "wall.jpg")
    names = [b"text.jpg", b"wall.jpg", b"gone.jpg"]
    tasks = [ImageTask(i, os.fsencode(tmp_path), name) for i, name in enumerate(names)]
    results = pool.classify(make_spec(model_folder, faces="detect"), tasks)
    assert [(r.outcome, r.error_code) for r in results] == [
        ("failed", "not_an_image"), ("no_face", None), ("failed", "missing"),
    ]  # fmt: skip
    inline = ImageTask(7, b"", b"", (tmp_path / "wall.jpg").read_bytes())
    (result,) = pool.classify(make_spec(model_folder), [inline], interactive=True)
    assert (result.key, result.outcome) == (7, "ok")


def test_a_model_that_a_device_cannot_load_is_refused(pool: DevicePool, tmp_path: Path, folder: Path) -> None:
    broken = make_torch_model(tmp_path / "broken", name="broken")
    weights = next(broken.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ModelError, match="broken"):
        pool.classify(make_spec(broken), make_tasks(folder)[:4])
    good = make_torch_model(tmp_path / "good", name="good", seed=2)
    assert all(result.outcome == "ok" for result in pool.classify(make_spec(good), make_tasks(folder)[:4]))


def test_exactly_the_images_that_end_engines_fail(
    model_folder: Path, folder: Path, expected: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One crashes the device engine, one hangs it, one crashes its decoder; a full device makes batches smaller."""
    monkeypatch.setenv("MIEN_FAULTS", "device_crash:*crash*,device_hang:*hang*,device_full4:*full*,crash:*broken*")
    pool = DevicePool(["cpu"], 2, batch=16, image_timeout_s=3.0)
    pool.start()
    try:
        results = pool.classify(make_spec(model_folder), make_tasks(folder))
    finally:
        pool.stop()
    assert {r.key: r.error_code for r in results if r.outcome == "failed"} == {
        5: "engine_crashed", 11: "timeout", 30: "engine_crashed",
    }  # fmt: skip
    assert "Classifying the image crashes the engine (SIGSEGV)" in (results[5].error or "")
    assert "Reading the image crashes" in (results[30].error or "")
    check(results, expected, failed=(5, 11, 30))


def test_a_gpu_that_is_not_there_is_told_in_a_sentence(model_folder: Path, folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    pool = DevicePool(["cuda:0"], 1)
    pool.start()
    try:
        with pytest.raises(EngineStartError, match="torch finds no CUDA device") as caught:
            pool.classify(make_spec(model_folder), make_tasks(folder)[:2])
    finally:
        pool.stop()
    assert "Traceback" not in str(caught.value)
