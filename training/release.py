"""From a run to a judged model folder: calibrate on one half of the validation images, package, judge on the other."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mien.int8 import Int8Cost, write_record
from mien.model_folder import Model
from training.calibrate import VoteCalibration, against_votes, fit_temperature, wanted_of
from training.card import trained_card
from training.metrics import Scores, score
from training.package import Packaged, network_of, package_run
from training.page import Page
from training.predictions import Predictions, predict, read_for_judging
from training.recipe import RecipeError
from training.split import groups_of, halves


@dataclass(frozen=True)
class Judge:
    """A folder that a model is judged on."""

    folder: Path
    faces: str
    split: str = "valid"


@dataclass(frozen=True)
class Release:
    """A packaged, calibrated and judged model."""

    packaged: Packaged
    temperature: float
    figures: list[tuple[str, Scores, VoteCalibration | None]]


def release(
    run: Path,
    folder: Path,
    *,
    name: str,
    judges: Sequence[Judge],
    margin: float | None = None,
    card: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Release:
    """Package a run into ``folder``.

    The temperature comes from one half of the first judge's images (near-duplicates on one side) and is folded into the
    head; every figure comes from images that did not set it: the other half there, all images of the other judges.

    Args:
        card: ``header``, ``about``, ``data``, ``procedure``, ``more`` of the model card; see :func:`trained_card`.
    """
    _, recipe, state = network_of(run)
    temperature, held_back = 1.0, None
    if judges:
        with tempfile.TemporaryDirectory() as scratch:
            plain = package_run(run, Path(scratch) / "plain", name=name, margin=margin, say=say)
            temperature, held_back = calibrate(plain.model, judges[0])
        say(f"temperature {temperature:.3f}")
    made = package_run(run, folder, name=name, temperature=temperature, margin=margin, say=say)
    figures = []
    for number, judge in enumerate(judges):
        names = held_back if number == 0 else None
        figures += judged(made.model, judge, only=names)
        say(f"{figures[-2][0]}: accuracy {figures[-2][1].accuracy:.4f}, int8 {figures[-1][1].accuracy:.4f}")
    write_record(folder, int8_costs(figures))
    content = card or {}
    steps, minutes = state["step"], state.get("seconds", state.get("elapsed", 0.0)) / 60
    text = trained_card(
        made,
        header=content.get(
            "header", {"library_name": "transformers", "pipeline_tag": "image-classification", "tags": ["mien"]}
        ),
        about=content.get("about", f"Trained by Mien with the recipe `{recipe.name}`."),
        data=content.get("data", "; ".join(Path(part.path).name for part in recipe.data)),
        procedure=content.get("procedure", "")
        + f"\n{steps:,} steps of {recipe.optim.batch * recipe.optim.accumulate} images in {minutes:.0f} minutes; "
        f"temperature {temperature:.3f} from one half of the validation images, folded into the head. "
        "The whole recipe:\n\n"
        f"```json\n{recipe.model_dump_json(indent=1, exclude_defaults=True)}\n```",
        figures=figures,
        more=content.get("more", ""),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return Release(made, temperature, figures)


def read_card(path: Path) -> dict[str, Any]:
    """What a model card says besides its figures: ``about``, ``data``, ``procedure``, ``more`` and a table ``header``.

    Raises:
        RecipeError: it cannot be read or is not valid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"The card {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"The card {path} is not valid TOML: {error}.") from None


def calibrate(model: Model, judge: Judge) -> tuple[float, frozenset[str]]:
    """The temperature fitted on one half of a judge's images, and the names of the other half."""
    every = predict(model, _items(judge), detect=judge.faces == "detect")
    first = np.array(halves(every.items, groups_of(every.items)))
    wanted = wanted_of(every.items, model.labels)
    usable = first & (wanted.sum(axis=1) > 0)
    temperature = fit_temperature(every.probabilities[usable], wanted[usable])
    return temperature, frozenset(item.name for item, taken in zip(every.items, first, strict=True) if not taken)


def judged(
    model: Model, judge: Judge, *, only: frozenset[str] | None = None
) -> list[tuple[str, Scores, VoteCalibration | None]]:
    """Scores of every precision that the folder has an export of."""
    items = [item for item in _items(judge) if only is None or item.name in only]
    result = []
    for precision, _ in model.onnx:
        found: Predictions = predict(model, items, detect=judge.faces == "detect", precision=precision)
        votes = against_votes(found.probabilities, found.items, model.labels)
        with_label = found.labelled()
        part = " (half)" if only is not None else ""
        name = f"{judge.folder.name} {judge.split}{part}, faces={judge.faces}, {precision}"
        result.append((name, score(with_label.probabilities, with_label.truth, model.labels), votes))
    return result


def int8_costs(figures: Sequence[tuple[str, Scores, VoteCalibration | None]]) -> list[Int8Cost]:
    """What int8 costs by these figures, one entry for each pair of judgements in fp32 and int8."""
    named = {name: scores for name, scores, _ in figures}
    pairs = ((name.removesuffix(", fp32"), scores) for name, scores in named.items() if name.endswith(", fp32"))
    return [
        Int8Cost(scores.images, scores.accuracy, named[f"{what}, int8"].accuracy, what)
        for what, scores in pairs
        if f"{what}, int8" in named
    ]


def write_figures(found: Release, path: Path) -> None:
    """Write the figures of a release as JSON, and as a page beside it."""
    content = [
        {"judged": name, "scores": scores.as_dict(), "votes": votes.as_dict() if votes else None}
        for name, scores, votes in found.figures
    ]
    model = found.packaged.model
    path.write_text(json.dumps({"model": model.name, "revision": model.revision, "figures": content}, indent=2) + "\n")
    page = Page(f"{model.name}, revision {model.revision[:12]}")
    page.table(
        ("judged on", "images", "accuracy", "balanced accuracy", "macro F1", "log loss"),
        ((n, s.images, s.accuracy, s.balanced_accuracy, s.macro_f1, s.log_loss) for n, s, _ in found.figures),
    )
    page.write(path.with_suffix(".html"))


def _items(judge: Judge) -> tuple[Any, ...]:
    votes = "votes.csv" if (judge.folder / "votes.csv").exists() else None
    return read_for_judging(judge.folder, split=judge.split, votes=votes)[1]
