"""Runs whose weights are averaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.average import average
from training.package import network_of
from training.train import FINAL


@pytest.fixture
def moved(trained: Path, tmp_path: Path) -> Path:
    """The trained run, each of its weights moved by 2."""
    shutil.copytree(trained / "run", tmp_path / "moved")
    state = checkpoint.load(tmp_path / "moved" / FINAL)
    weights = {name: tensor + 2 if tensor.is_floating_point() else tensor for name, tensor in state["weights"].items()}
    checkpoint.save(tmp_path / "moved" / FINAL, state | {"weights": weights})
    return tmp_path / "moved"


def test_each_weight_is_the_mean_of_the_runs(trained: Path, moved: Path, tmp_path: Path) -> None:
    average([trained / "run", moved], tmp_path / "mean")
    first, _, _ = network_of(trained / "run")
    mean, _, _ = network_of(tmp_path / "mean")  # a run like others: it can be packaged
    for name, weight in first.state_dict().items():
        torch.testing.assert_close(mean.state_dict()[name], weight + 1 if weight.is_floating_point() else weight)


def test_another_network_is_refused(trained: Path, moved: Path, tmp_path: Path) -> None:
    state = checkpoint.load(moved / FINAL)
    name = next(iter(state["weights"]))
    checkpoint.save(moved / FINAL, state | {"weights": state["weights"] | {name: torch.zeros(1, 1, 1, 7)}})
    with pytest.raises(ValueError, match="are not the same"):
        average([trained / "run", moved], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_one_run_is_no_average(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two runs or more"):
        average([trained / "run"], tmp_path / "mean")


def test_a_run_is_never_overwritten(trained: Path, moved: Path) -> None:
    before = (moved / FINAL).read_bytes()
    with pytest.raises(FileExistsError):
        average([trained / "run", moved], moved)
    assert (moved / FINAL).read_bytes() == before
