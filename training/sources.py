"""The roots of a recipe as tensors: canvases to draw views from, targets, and the validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.canvases import Canvases, CanvasSpec, load_canvases
from training.data import DataError, Item, label_ids, require_training, scan, targets, usable
from training.recipe import DataPart, Recipe
from training.sampler import RootSampler, balance_weights
from training.split import split_off_valid

CANVAS_MARGIN = 0.5
"""Margin around a face on the canvases that training views are drawn from (faces=detect)."""


@dataclass
class TrainRoot:
    """One root, ready to draw from."""

    part: DataPart
    canvases: Canvases
    targets: Tensor
    """float32 [N, L]."""
    sampler: RootSampler
    counts: Tensor
    """[L], images per label (votes counted in shares)."""

    @property
    def middle_extent(self) -> float:
        """The share of the canvas that a view at the middle of the margins covers."""
        return 1.0 if self.part.faces == "whole" else (1 + sum(self.part.margin)) / (1 + 2 * CANVAS_MARGIN)

    def extent(self, generator: torch.Generator, count: int) -> Tensor:
        """Share of the canvas that each view covers: one drawn margin per image."""
        if self.part.faces == "whole":
            return torch.ones(count)
        low, high = self.part.margin
        margin = low + (high - low) * torch.rand(count, generator=generator)
        return (1 + 2 * margin) / (1 + 2 * CANVAS_MARGIN)


@dataclass
class ValidRoot:
    """The validation images of one root, cropped as serving crops them."""

    name: str
    canvases: Canvases
    labels: torch.Tensor
    """int64 [N]; -1 where the folder's label is none of the model's."""
    targets: Tensor


@dataclass
class Sources:
    """Everything a run reads."""

    labels: tuple[str, ...]
    train: list[TrainRoot]
    valid: list[ValidRoot]
    notes: list[str]
    """What was found on the way: unreadable files, images without a face, imbalance."""


def open_sources(recipe: Recipe, cache: Path, *, say: Callable[[str], None] = lambda _: None) -> Sources:
    """Scan, split, decode and crop all roots of a recipe.

    Raises:
        DataError: a root is missing or holds nothing of the recipe's labels.
    """
    scans = [scan(part.root, votes=part.votes, drop_single_votes=part.drop_single_votes) for part in recipe.data]
    labels = recipe.labels or tuple(sorted({label for found in scans for label in found.labels}))
    if len(labels) < 2:
        raise DataError(f"All training images are of one label ({labels[0]}); a classifier needs two or more.")
    sources = Sources(labels, [], [], [])
    for number, (part, found) in enumerate(zip(recipe.data, scans, strict=True)):
        if "valid" not in found.splits:
            found = split_off_valid(found, seed=recipe.run.seed)  # noqa: PLW2901
            sources.notes.append(f"{part.root.name}: no valid split; one image in ten was set aside, by label.")
        train_items = require_training(found, labels)
        valid_items = tuple(item for item in found.splits["valid"] if item.label in labels)
        size, grey = recipe.model.image_size, recipe.model.grey
        canvas = CanvasSpec(_canvas_size(part, size), CANVAS_MARGIN, part.faces == "detect", grey)
        exact = CanvasSpec(size, sum(part.margin) / 2, part.faces == "detect", grey)
        say(f"reading {part.root.name}: {len(train_items)} training, {len(valid_items)} validation images")
        sources.train.append(_train_root(recipe, number, part, load_canvases(train_items, canvas, cache), labels))
        valid = load_canvases(valid_items, exact, cache)
        ids = torch.from_numpy(label_ids(valid.items, labels))
        soft = torch.from_numpy(targets(valid.items, labels))
        sources.valid.append(ValidRoot(part.root.name, valid, ids, soft))
        sources.notes.extend(_notes(part, sources.train[-1], valid, labels))
    seen = sum(root.counts for root in sources.train)
    if int((torch.as_tensor(seen) > 0).sum()) < 2:
        raise DataError("All training images are of one label; a classifier needs two or more.")
    return sources


def _canvas_size(part: DataPart, size: int) -> int:
    return size if part.faces == "whole" else round(size * (1 + 2 * CANVAS_MARGIN) * 1.15)


def _train_root(recipe: Recipe, number: int, part: DataPart, canvases: Canvases, labels: tuple[str, ...]) -> TrainRoot:
    items: tuple[Item, ...] = usable(canvases.items, labels)
    if not items:
        raise DataError(
            f"None of the training images of {str(part.root)!r} can be used (see the notes on what was read)."
        )
    soft = torch.from_numpy(targets(canvases.items, labels))
    weights = None
    if part.balance != "none":
        weights = balance_weights(np.asarray(soft.argmax(dim=1).numpy(), np.int64), part.balance)
    sampler = RootSampler(len(canvases.items), seed=recipe.run.seed, root=number, weights=weights)
    return TrainRoot(part, canvases, soft, sampler, soft.sum(dim=0))


def _notes(part: DataPart, root: TrainRoot, valid: Canvases, labels: tuple[str, ...]) -> list[str]:
    name, notes = part.root.name, []
    for kind, found in (("training", root.canvases), ("validation", valid)):
        if found.unreadable:
            first, reason = found.unreadable[0]
            notes.append(f"{name}: {len(found.unreadable)} {kind} images cannot be read, such as {first}: {reason}")
        if found.no_face:
            notes.append(f"{name}: no face in {len(found.no_face)} {kind} images, such as {found.no_face[0]}")
    counts = {label: round(float(count)) for label, count in zip(labels, root.counts, strict=True)}
    largest, smallest = max(counts.values()), min(counts.values())
    if largest > 10 * max(1, smallest):
        notes.append(f"{name}: labels are imbalanced {counts}; data.balance or optim.class_weights evens them out.")
    return notes
