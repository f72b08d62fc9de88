"""The average of the weights of several runs of one network: ``python -m training.average RUN RUN... TARGET``.

Weights of which one was trained on from the other lie in one valley of the loss; their mean is often better than each,
at the cost of one (Wortsman et al. 2022, arXiv:2203.05482).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import torch

from training import checkpoint
from training.train import FINAL


def average(runs: list[Path], target: Path) -> Path:
    """Write ``target``, a run like the last of ``runs``, whose weights are the mean of theirs; gives its checkpoint.

    Raises:
        ValueError: fewer than two runs, or networks that differ.
        FileExistsError: there is a run in ``target`` already.
    """
    if len(runs) < 2:
        raise ValueError("An average needs two runs or more.")
    states = [checkpoint.load(run / FINAL) for run in runs]
    shapes = [{name: tensor.shape for name, tensor in state["weights"].items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"The networks of {', '.join(map(str, runs))} are not the same.")
    if any(state["labels"] != states[0]["labels"] for state in states):
        raise ValueError(f"The labels of {', '.join(map(str, runs))} are not the same, or in another order.")
    target.mkdir(parents=True)
    for name in ("recipe.json", "steps.csv", "validations.csv"):
        shutil.copy2(runs[-1] / name, target / name)
    weights = {name: _mean([state["weights"][name] for state in states]) for name in states[0]["weights"]}
    checkpoint.save(target / FINAL, states[-1] | {"weights": weights, "metrics": {}})
    return target / FINAL


def _mean(tensors: list[torch.Tensor]) -> torch.Tensor:
    if not tensors[-1].is_floating_point():
        return tensors[-1]  # counters
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(tensors[-1].dtype)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", type=click.Path(path_type=Path))
def main(runs: tuple[Path, ...], target: Path) -> None:
    """Write the run TARGET, whose weights are the mean of those of RUNS."""
    try:
        average(list(runs), target)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(
        f"{target / FINAL} holds the mean of {len(runs)} runs; `mien package {target} FOLDER` makes a model of it."
    )


if __name__ == "__main__":
    main()
