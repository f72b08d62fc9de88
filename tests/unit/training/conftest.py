"""Training is tested where torch is installed."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "training" in item.path.parts:
            item.add_marker("torch")
