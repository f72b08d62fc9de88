"""Training is tested where torch is installed."""

import importlib.util
from pathlib import Path

import pytest

# the modules import torch at their top, so without it they are not even collected
MISSING = [name for name in ("torch", "transformers", "sklearn") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("torch")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn ``faces``, a short ``run`` on them, and its packaged ``model``."""
    from training.demo import demo_recipe, draw_faces
    from training.recipe import with_length
    from training.release import Judge, release, write_figures
    from training.train import Trainer

    folder = tmp_path_factory.mktemp("trained")
    draw_faces(folder / "faces", images={"train": 40, "valid": 20})
    recipe = with_length(demo_recipe(folder / "faces"), budget=None, steps=40)
    Trainer(recipe, folder / "run", cache=folder / "cache", device="cpu", say=lambda _: None).train()
    found = release(folder / "run", folder / "model", name="drawn", judges=[Judge(folder / "faces", "whole")])
    write_figures(found, folder / "run" / "figures.json")
    return folder
