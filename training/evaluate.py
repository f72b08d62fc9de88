"""Judging a packaged model on a labelled folder: figures, slices, calibration, mistakes; one HTML page and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mien.model_folder import Model
from training.calibrate import VoteCalibration, against_votes, reliability
from training.data import DataError
from training.metrics import Scores, expected_calibration_error, mcnemar, score
from training.page import Page
from training.predictions import Predictions, predict, read_for_judging
from training.svg import heat_map
from training.svg import reliability as reliability_chart

WORST = 40
SLICE_AT_LEAST = 20


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found out about one model on one folder."""

    model: Model
    precision: str
    data: str
    faces: str
    predictions: Predictions
    scores: Scores
    ece_majority: float
    votes: VoteCalibration | None
    slices: dict[str, dict[str, float]]
    comparison: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        p = self.predictions
        return {
            "model": {"name": self.model.name, "revision": self.model.revision, "precision": self.precision},
            "data": self.data,
            "faces": self.faces,
            "labels": list(self.model.labels),
            "unreadable": [list(entry) for entry in p.unreadable],
            "no_face": [item.name for item in p.no_face],
            "scores": self.scores.as_dict(),
            "accuracy_with_no_face_as_errors": self.scores.accuracy
            * self.scores.images
            / max(1, self.scores.images + sum(1 for item in p.no_face if item.label)),
            "ece_majority": self.ece_majority,
            "votes": self.votes.as_dict() if self.votes else None,
            "slices": self.slices,
            "images_per_second_classifier": len(p.items) / p.seconds,
            "comparison": self.comparison,
        }


def evaluate(
    model: Model,
    folder: Path,
    *,
    split: str | None = None,
    votes: str | None = None,
    faces: str = "whole",
    precision: str = "fp32",
    margin: float | None = None,
    rename: Mapping[str, str] | None = None,
    other: Model | None = None,
) -> Evaluation:
    """Judge ``model``; with ``other``, compare the two on the same images by McNemar's test.

    Args:
        votes: CSV of raters' votes below ``folder``; found by itself if it is called votes.csv.
        faces: ``whole``, or ``detect`` to crop the largest face as the worker does.

    Raises:
        DataError: nothing to judge, or labels that do not match.
    """
    if votes is None and (folder / "votes.csv").exists():
        votes = "votes.csv"
    _, items = read_for_judging(folder, split=split, votes=votes, rename=rename)
    every = predict(model, items, detect=faces == "detect", precision=precision, margin=margin)
    judged = every.labelled()
    if not judged.items:
        raise DataError(f"No image of {str(folder)!r} has a label to judge by.")
    known = judged.truth >= 0
    comparison = None
    if other is not None:
        comparison = _compare(judged, other, faces == "detect", precision)
    return Evaluation(
        model=model,
        precision=precision,
        data=f"{folder.name} {split or ''}".strip(),
        faces=faces,
        predictions=judged,
        scores=score(judged.probabilities, judged.truth, model.labels),
        ece_majority=expected_calibration_error(judged.probabilities[known], judged.truth[known]),
        votes=against_votes(every.probabilities, every.items, model.labels),
        slices=slices(judged),
        comparison=comparison,
    )


def _compare(mine: Predictions, other: Model, detect: bool, precision: str) -> dict[str, Any]:
    theirs = predict(other, mine.items, detect=detect, precision=precision)
    place = {item.name: i for i, item in enumerate(theirs.items)}
    both = [(i, place[item.name]) for i, item in enumerate(mine.items) if item.name in place]
    first = [mine.labels[k] for k in mine.probabilities.argmax(axis=1)]
    second = [theirs.labels[k] for k in theirs.probabilities.argmax(axis=1)]
    names = sorted({*mine.labels, *theirs.labels, *(item.label or "" for item in mine.items)})
    index = {name: i for i, name in enumerate(names)}
    truth = np.array([index[mine.items[i].label or ""] for i, _ in both])
    a, b = (
        np.array([index[name] for name in column])
        for column in ([first[i] for i, _ in both], [second[j] for _, j in both])
    )
    result: dict[str, Any] = {"other": {"name": other.name, "revision": other.revision}, "images": len(both)}
    result |= {"accuracy": float((a == truth).mean()), "accuracy_other": float((b == truth).mean())}
    return result | {"mcnemar": mcnemar(truth, a, b)}


def slices(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Accuracy on thirds of the images by size and by brightness of the crop (those of few images left out)."""
    hits = predictions.probabilities.argmax(axis=1) == predictions.truth
    result: dict[str, dict[str, float]] = {}
    kinds: Sequence[tuple[str, npt.NDArray[Any]]] = (
        ("size", predictions.sides),
        ("brightness", predictions.brightness),
    )
    for name, values in kinds:
        low, high = np.quantile(values, [1 / 3, 2 / 3])
        masks = {
            f"{name} up to {low:.0f}": values <= low,
            f"{name} {low:.0f} to {high:.0f}": (values > low) & (values <= high),
            f"{name} over {high:.0f}": values > high,
        }
        for label, mask in masks.items():
            if int(mask.sum()) >= SLICE_AT_LEAST:
                result[label] = {"images": int(mask.sum()), "accuracy": float(hits[mask].mean())}
    return result


def write_report(found: Evaluation, folder: Path) -> None:
    """Write ``evaluation.json`` and ``evaluation.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(found.as_dict(), indent=2, allow_nan=True) + "\n")
    scores, predictions = found.scores, found.predictions
    page = Page(f"{found.model.name} on {found.data}")
    page.text(
        f"Model {found.model.name}, revision {found.model.revision[:12]}, {found.precision}; faces={found.faces}; "
        f"{scores.images} images judged, {scores.unknown} of labels that the model does not have (counted as errors), "
        f"{len(predictions.no_face)} without a face, {len(predictions.unreadable)} unreadable."
    )
    page.table(("figure", "value", "95% interval (bootstrap)"), _summary(found))
    page.heading("Labels")
    page.table(
        ("label", "precision", "recall", "F1", "AUC (one vs rest)", "images"),
        (
            (s.label, s.precision, s.recall, s.f1, s.auc if s.auc is not None else "", s.images)
            for s in scores.per_label
        ),
    )
    rows = [*found.model.labels, *(["other"] if scores.unknown else [])]
    page.charts(heat_map(scores.confusion, rows, found.model.labels, title="Confusion (rows: true label)"))
    page.heading("Calibration")
    page.charts(*_calibration_charts(found))
    page.heading("Slices")
    page.table(("slice", "images", "accuracy"), ((n, int(v["images"]), v["accuracy"]) for n, v in found.slices.items()))
    if found.comparison:
        page.heading("Comparison")
        page.table(("figure", "value"), _flat(found.comparison))
    page.heading("Worst mistakes")
    page.text("The images whose true label had the lowest probability, as the classifier saw them.")
    page.pictures(_worst(found))
    page.write(folder / "evaluation.html")


def _summary(found: Evaluation) -> list[tuple[object, ...]]:
    s = found.scores
    rows: list[tuple[object, ...]] = [
        ("accuracy", s.accuracy, _interval(s.accuracy_interval)),
        ("balanced accuracy", s.balanced_accuracy, _interval(s.balanced_accuracy_interval)),
        ("accuracy of the most frequent label alone", s.majority_accuracy, ""),
        ("balanced accuracy of any label alone", 1 / max(1, sum(1 for x in s.per_label if x.images)), ""),
        ("macro F1", s.macro_f1, ""),
        ("macro precision", s.macro_precision, ""),
        ("macro recall", s.macro_recall, ""),
        ("macro AUC (one vs rest)", s.macro_auc if s.macro_auc is not None else "", ""),
        ("log loss", s.log_loss, ""),
        ("expected calibration error (majority label)", s.ece, ""),
        ("classifier, images/s on one thread", len(found.predictions.items) / found.predictions.seconds, ""),
    ]
    if found.votes:
        v = found.votes
        rows += [
            ("confidence against share of votes, mean gap", v.vote_gap, ""),
            ("divergence from the votes (Jensen-Shannon, nats)", v.divergence, ""),
            ("divergence from half of the raters", v.divergence_half, ""),
            ("divergence between two halves of the raters", v.divergence_raters, ""),
        ]
    return rows


def _calibration_charts(found: Evaluation) -> list[str]:
    p = found.predictions
    hits = (p.probabilities.argmax(axis=1) == p.truth).astype(np.float64)
    charts = [
        reliability_chart(
            reliability(p.probabilities.max(axis=1), hits), title="Against the majority label", up="accuracy"
        )
    ]
    if found.votes:
        charts.append(reliability_chart(found.votes.bins, title="Against the votes", up="share of votes"))
    return charts


def _worst(found: Evaluation) -> list[tuple[npt.NDArray[np.uint8], str]]:
    p = found.predictions
    predicted = p.probabilities.argmax(axis=1)
    truth_p = np.array([row[t] if t >= 0 else 0.0 for row, t in zip(p.probabilities, p.truth, strict=True)])
    wrong = np.flatnonzero(predicted != p.truth)
    order = wrong[np.argsort(truth_p[wrong] - p.probabilities.max(axis=1)[wrong], kind="stable")][:WORST]
    return [
        (p.crops[i], f"{p.items[i].label} taken for {p.labels[predicted[i]]} ({p.probabilities[i].max():.2f})")
        for i in order
    ]


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            rows.extend(_flat(value, f"{prefix}{key} "))
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _interval(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.4f} to {pair[1]:.4f}"
