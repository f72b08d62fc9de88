"""The table of models: accuracy on each set in every precision, size on disk, images a second on one core.

    python -m benchmarks.models --ferplus DATA/ferplus --wild DATA/wild FOLDER... [--out docs/model_figures.json]

Accuracy: FER+ ``valid`` with faces=whole (majority label, ``unclear`` left out) and wild ``valid`` through the detector
(images without a face left out). Speed: the worker's classifier on batches of 8 crops, one thread, in
processor time, the best of several rounds, so that other work on the machine disturbs it least.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from mien.images import RGB
from mien.model_folder import Model, load_model
from training.metrics import score
from training.predictions import classify, predict, read_for_judging
from worker.classifier import BATCH, open_classifier

ROUNDS, BATCHES = 15, 6


def images_per_second(model: Model, precision: str, crops: list[RGB]) -> float:
    """Per second of one core's time, the best of several rounds."""
    classifier = open_classifier(model, "cpu", precision)
    chosen = crops[: BATCH * BATCHES]
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        classify(classifier, chosen)
        best = min(best, time.process_time() - started)
    return len(chosen) / best


def measure(model: Model, sets: list[tuple[str, Path, bool]]) -> list[dict[str, Any]]:
    """One row per precision."""
    rows = []
    for precision, file in model.onnx:
        row: dict[str, Any] = {"model": model.folder.name, "revision": model.revision[:12], "precision": precision}
        crops: list[RGB] = []
        for name, folder, detect in sets:
            votes = "votes.csv" if (folder / "votes.csv").exists() else None
            _, items = read_for_judging(folder, split="valid", votes=votes)
            found = predict(model, [i for i in items if i.label], detect=detect, precision=precision)
            scores = score(found.probabilities, found.truth, model.labels)
            row[name] = {
                "images": scores.images,
                "accuracy": scores.accuracy,
                "interval": scores.accuracy_interval,
                "balanced_accuracy": scores.balanced_accuracy,
                "log_loss": scores.log_loss,
            }
            crops = list(found.crops)
        row["images_per_s"] = images_per_second(model, precision, crops)
        size = (model.folder / file).stat().st_size
        if precision == "fp32":  # the export refers to the weights in the safetensors
            size += sum(path.stat().st_size for path in model.folder.glob("*.safetensors"))
        row["megabytes"] = round(size / 1e6, 1)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], sets: list[str]) -> str:
    """A Markdown table."""
    lines = [
        "| model | precision | "
        + " | ".join(f"{name}: accuracy (95%) | balanced" for name in sets)
        + " | MB | images/s |",
        "| --- | --- | " + " | ".join("--- | ---" for _ in sets) + " | --- | --- |",
    ]
    for row in rows:
        cells = [row["model"], row["precision"]]
        for name in sets:
            found = row[name]
            low, high = found["interval"]
            cells.append(f"{100 * found['accuracy']:.1f}% ({100 * low:.1f} to {100 * high:.1f})")
            cells.append(f"{100 * found['balanced_accuracy']:.1f}%")
        lines.append("| " + " | ".join([*cells, f"{row['megabytes']}", f"{row['images_per_s']:.0f}"]) + " |")
    return "\n".join(lines)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--ferplus", required=True, type=click.Path(path_type=Path))
@click.option("--wild", required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(folders: tuple[Path, ...], ferplus: Path, wild: Path, out: Path | None) -> None:
    """Measure the model FOLDERS."""
    sets = [("FER+ valid", ferplus, False), ("wild valid", wild, True)]
    rows = [row for folder in folders for row in measure(load_model(folder), sets)]
    print(table(rows, [name for name, _, _ in sets]))
    if out:
        out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
