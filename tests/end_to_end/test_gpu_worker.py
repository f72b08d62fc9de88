"""The whole system with a GPU worker, the CPU in the place of two GPUs: the samples in bf16, against a CPU engine."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from mien.model_folder import load_model
from tests.end_to_end.system import Mien
from tests.support.machine import ROOT
from worker.messages import EngineSpec, ImageTask

BF16_BOUND = 0.02


@pytest.mark.torch
@pytest.mark.timeout(300)  # two engines import torch
def test_a_gpu_worker_answers_as_a_cpu_engine_within_the_bound(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from worker.stages import Stages

    settings = {
        "MIEN_DEVICE": "cuda", "MIEN_DEVICES": "cpu,cpu", "MIEN_ENGINES": "2", "MIEN_DEVICE_BATCH": "8",
        "MIEN_PRECISION": "bf16",
    }  # fmt: skip
    mien = Mien(tmp_path / "data", settings)
    mien.run("classify", ROOT / "samples", "--csv", tmp_path / "gpu.csv")
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert not mien.parts()

    model = load_model(ROOT / "models" / "default")
    spec = EngineSpec(
        str(model.folder), model.revision, "cpu", "fp32", "detect", 640, 0.7, 0,
        max_pixels=200_000_000, max_file_bytes=1 << 29,
    )  # fmt: skip
    names = sorted({row["file"] for row in rows})
    tasks = [ImageTask(i, os.fsencode(ROOT / "samples"), os.fsencode(name)) for i, name in enumerate(names)]
    results = Stages(device="cpu", batch=8, sign=lambda: None).run(spec, tasks, lambda _: None)
    faces = 0
    for name, result in zip(names, results, strict=True):
        own = [row for row in rows if row["file"] == name]
        assert {row["status"] for row in own} == {result.outcome}
        for row, face in zip(own if result.faces else [], result.faces, strict=True):
            faces += 1
            assert [float(row[key]) for key in ("x", "y", "width", "height")] == pytest.approx(
                [face.x, face.y, face.width, face.height], abs=0.11
            )
            shares = [float(row[f"p_{label}"]) for label in model.labels]
            assert shares == pytest.approx(face.probabilities, abs=BF16_BOUND)
    assert faces >= 5
