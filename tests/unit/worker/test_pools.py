"""Which engines a worker gets for its device and settings, and what its GPUs can do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mien.errors import SettingsError
from mien.settings import load_settings
from worker import devices
from worker.device_pool import DevicePool
from worker.gpus import lowest_capability, parse_capabilities, visible_gpus
from worker.pools import devices_of, is_compiled, make_pool
from worker.supervisor import EnginePool

ROOT = Path(__file__).parents[3]


def test_a_cpu_worker_has_engines_and_a_gpu_worker_decoding_processes() -> None:
    cpu = make_pool("cpu", load_settings(engines=3))
    assert type(cpu) is EnginePool
    assert cpu.size == 3
    gpu = make_pool("cuda", load_settings(engines=5, devices="cpu,cpu", device_batch=64))
    assert type(gpu) is DevicePool
    assert gpu.size == 5
    # two batches of 64 per device fit into the hands of five decoding processes, and some images besides
    assert gpu.images_in_hand >= 2 * 64 * 2


def test_every_visible_gpu_is_driven_unless_some_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.pools.gpu_count", lambda: 4)
    assert devices_of(load_settings()) == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert devices_of(load_settings(devices="cuda:1,cuda:3")) == ("cuda:1", "cuda:3")
    with pytest.raises(SettingsError, match=r"MIEN_DEVICES.*'tpu' is not"):
        load_settings(devices="cuda:0,tpu")


@pytest.mark.parametrize(
    ("setting", "device", "compiled"),
    [("auto", "cuda:0", True), ("auto", "cpu", False), ("on", "cpu", True), ("off", "cuda:0", False)],
)
def test_what_is_compiled(setting: str, device: str, compiled: bool) -> None:
    assert is_compiled((device,), setting) is compiled


def test_a_cuda_engine_sees_its_own_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glob.glob", lambda _: ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-8c1f")
    assert visible_gpus() == ["2", "GPU-8c1f"]


def test_old_gpus_do_not_take_jobs_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "0, GPU-aaa, 7.5\n1, GPU-bbb, 9.0\n2, GPU-ccc, [N/A]\n"
    assert parse_capabilities(said, ["0", "1"]) == 7.5
    assert parse_capabilities(said, ["GPU-bbb"]) == 9.0
    assert parse_capabilities(said, ["2"]) is None
    for capability, bf16 in ((7.5, False), (8.0, True), (9.0, True), (None, True)):
        monkeypatch.setattr(devices, "lowest_capability", lambda found=capability: found)
        assert ("bf16" in devices.precisions_of("cuda")) is bf16
        assert {"fp32", "fp16"} <= set(devices.precisions_of("cuda"))


def test_capabilities_are_asked_of_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaa, 8.6'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("worker.gpus.visible_gpus", lambda: ["0"])
    lowest_capability.cache_clear()
    assert lowest_capability() == 8.6
    lowest_capability.cache_clear()


@pytest.mark.parametrize(
    ("module", "light"),
    [
        ("worker.decoder", {"torch", "transformers", "sqlalchemy", "celery"}),
        ("worker.device_engine", {"PIL", "simplejpeg", "onnxruntime", "sqlalchemy", "celery"}),
        ("worker.device_pool", {"numpy", "PIL", "onnxruntime", "torch", "sqlalchemy", "celery"}),
    ],
)
def test_each_process_loads_what_it_needs_and_no_more(module: str, light: set[str]) -> None:
    code = f"import {module}, sys; print(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not light & set(loaded.split())
