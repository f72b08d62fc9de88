"""A packaged model's answers on a labelled folder, made by the worker's own detector, crops and classifier."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mien.errors import ImageError
from mien.images import RGB
from mien.model_folder import CropSpec, Model
from training.crops import Cropper, read_image
from training.data import DataError, Dataset, Item, label_ids, scan
from worker.classifier import BATCH, Classifier, open_classifier

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """What a model says about the images that could be read and, with faces=detect, show a face."""

    labels: tuple[str, ...]
    items: tuple[Item, ...]
    probabilities: Floats
    """[N, L]."""
    truth: npt.NDArray[np.int64]
    """[N] index into ``labels``; -1 where the folder's label is none of the model's, or the image has no majority."""
    sides: npt.NDArray[np.int64]
    """[N] shorter side of the image in pixels."""
    brightness: Floats
    """[N] mean of the crop, 0 to 255."""
    crops: tuple[RGB, ...]
    """The classifier's inputs."""
    unreadable: tuple[tuple[str, str], ...]
    no_face: tuple[Item, ...]
    seconds: float
    """Time in the classifier alone, one thread."""

    def only(self, chosen: Sequence[int] | npt.NDArray[np.int64]) -> Predictions:
        """The same for some of the images."""
        index = np.asarray(chosen, np.int64)
        return replace(
            self,
            items=tuple(self.items[i] for i in index),
            probabilities=self.probabilities[index],
            truth=self.truth[index],
            sides=self.sides[index],
            brightness=self.brightness[index],
            crops=tuple(self.crops[i] for i in index),
        )

    def labelled(self) -> Predictions:
        """The same for the images with a label (``unclear`` left out)."""
        return self.only([i for i, item in enumerate(self.items) if item.label])


def read_for_judging(
    folder: Path, *, split: str | None = None, votes: str | None = None, rename: Mapping[str, str] | None = None
) -> tuple[Dataset, tuple[Item, ...]]:
    """The images that judge a model: split ``split``, else valid, else test, else all.

    Raises:
        DataError: no such split, or no images.
    """
    found = scan(folder, votes=votes, drop_single_votes=False)
    if split is not None and split not in found.splits:
        raise DataError(f"{str(folder)!r} has no split {split!r}; it has {', '.join(found.splits)}.")
    chosen = split or next((name for name in ("valid", "test", "all", "train") if name in found.splits), "all")
    items = found.splits[chosen]
    if rename:
        items = tuple(replace(item, label=rename.get(item.label or "", item.label)) for item in items)
    return found, items


def predict(
    model: Model,
    items: Sequence[Item],
    *,
    detect: bool,
    precision: str = "fp32",
    margin: float | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Classify the (largest face of the) images.

    Args:
        margin: another crop margin than the model's own.

    Raises:
        DataError: none of the images' labels is one of the model's, or nothing could be classified.
    """
    crop = model.crop if margin is None else CropSpec(margin, model.crop.grey)
    cropper = Cropper(crop, model.input, detect=detect)
    _require_common_label(model, items)
    kept, crops, sides, unreadable, no_face = [], [], [], [], []
    for position, item in enumerate(items):
        if progress and position % 100 == 0:
            progress(position, len(items))
        try:
            image = read_image(item.path)
        except (ImageError, OSError) as error:
            unreadable.append((item.name, getattr(error, "detail", str(error))))
            continue
        face = cropper(image)
        if face is None:
            no_face.append(item)
            continue
        kept.append(position)
        crops.append(face)
        sides.append(min(image.width, image.height))
    if not kept:
        raise DataError(
            f"None of {len(items)} images could be classified: {len(unreadable)} unreadable, "
            f"{len(no_face)} without a face."
        )
    started = time.perf_counter()
    probabilities = classify(open_classifier(model, device, precision), crops)
    return Predictions(
        labels=model.labels,
        items=tuple(items[i] for i in kept),
        probabilities=probabilities,
        truth=label_ids(items, model.labels)[kept],
        sides=np.array(sides, np.int64),
        brightness=np.array([face.mean() for face in crops]),
        crops=tuple(crops),
        unreadable=tuple(unreadable),
        no_face=tuple(no_face),
        seconds=time.perf_counter() - started,
    )


def _require_common_label(model: Model, items: Sequence[Item]) -> None:
    theirs = sorted({item.label for item in items if item.label})
    if theirs and not set(theirs) & set(model.labels):
        raise DataError(
            f"No label of the images ({', '.join(theirs)}) is one of the model's ({', '.join(model.labels)}); "
            "--map old=new renames labels."
        )


def classify(classifier: Classifier, crops: Sequence[RGB]) -> Floats:
    """Probabilities [N, L] of crops, :data:`BATCH` at once on any device."""
    parts = [classifier.classify(crops[i : i + BATCH]) for i in range(0, len(crops), BATCH)]
    probabilities = np.concatenate(parts).astype(np.float64)
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))
