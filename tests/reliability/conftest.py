"""Running systems to be broken; a tiny model, images whose answers can be computed, and a pool of engines."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.reliability.engines import make_spec
from tests.reliability.promises import PROMISES, Keep, Trial
from tests.reliability.systems import System, running
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


@pytest.fixture(scope="session")
def system_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], System]]:
    """The systems that run; each is started once, by whoever needs it first."""
    from tests.reliability import torture  # registers the promises

    assert torture.TRIALS
    systems: dict[str, System] = {}
    with ExitStack() as running_systems:

        def get(way: str) -> System:
            if way not in systems:
                systems[way] = running_systems.enter_context(running(way, tmp_path_factory.mktemp(way) / "system"))
            return systems[way]

        yield get


@pytest.fixture
def keep(system_of: Callable[[str], System], tmp_path: Path) -> Keep:
    """Tries one promise in its short form, one way to run Mien; gives its figures."""
    return lambda number, way: PROMISES[number].keep(Trial(system_of(way), False, tmp_path, random.Random(7)))
