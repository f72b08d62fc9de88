"""A tiny model, images whose answers can be computed, and a pool of engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.reliability.engines import make_spec
from tests.support.tiny_model import make_tiny_model
from worker.messages import EngineSpec
from worker.supervisor import EnginePool


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 flat images, each of its own brightness, so that a mix-up of results shows."""
    place = tmp_path_factory.mktemp("images")
    for i in range(120):
        Image.fromarray(np.full((40, 50, 3), 2 * i, np.uint8)).save(place / f"{i:03}.png")
    return place


@pytest.fixture
def spec(model_folder: Path) -> EngineSpec:
    return make_spec(model_folder)


@pytest.fixture
def pool() -> Iterator[EnginePool]:
    with_faults = EnginePool(2, image_timeout_s=2.0)
    with_faults.start()
    yield with_faults
    with_faults.stop()
