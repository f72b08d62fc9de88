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
