"""Engine pools for tests: what to ask them, and the exact look at their answers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import psutil

from mien.models import load_model
from tests.support.tiny_model import expected
from worker.messages import EngineSpec, ImageResult, ImageTask


def make_spec(model_folder: Path, faces: str = "whole") -> EngineSpec:
    model = load_model(model_folder)
    return EngineSpec(
        str(model.folder),
        model.revision,
        "cpu",
        "fp32",
        faces,
        320,
        0.7,
        0,
        max_pixels=10_000_000,
        max_file_bytes=1 << 20,
    )


def make_tasks(folder: Path, names: list[str] | None = None) -> list[ImageTask]:
    found = names if names is not None else sorted(path.name for path in folder.iterdir())
    return [ImageTask(key, os.fsencode(folder), os.fsencode(name)) for key, name in enumerate(found)]


def check_all_exact(results: list[ImageResult]) -> None:
    for i, result in enumerate(results):
        assert result.key == i
        assert result.outcome == "ok", result
        np.testing.assert_allclose(result.faces[0].probabilities, expected(2 * i / 255), atol=1e-4)


def wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
