"""The plots of a run: loss, learning rate and validation figures over the steps."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from training.page import Page
from training.svg import lines


def run_plots(folder: Path) -> Path:
    """Write ``plots.html`` from the CSV files of a run's folder."""
    loss, rate = [], []
    with (folder / "steps.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            loss.append((float(row["step"]), float(row["loss"])))
            rate.append((float(row["step"]), float(row["lr"])))
    figures: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    with (folder / "validations.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            for name in ("accuracy", "balanced_accuracy", "log_loss"):
                figures[name][row["root"]].append((float(row["step"]), float(row[name])))
    page = Page(f"Run {folder.name}")
    page.charts(
        lines({"loss": loss}, title="Training loss (smoothed)", across="step", up="loss"),
        lines({"rate": rate}, title="Learning rate of the head", across="step", up="rate"),
        *(lines(series, title=f"Validation: {name}", across="step", up=name) for name, series in figures.items()),
    )
    page.write(folder / "plots.html")
    return folder / "plots.html"
