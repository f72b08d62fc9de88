"""How good a model was found to be, as the file ``figures.json`` in its folder says; ``mien package`` writes it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mien.model_folder import Model

log = logging.getLogger(__name__)

FIGURES = "figures.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class LabelScore(_Part):
    """One label against the others."""

    label: str
    precision: float
    recall: float
    f1: float
    images: int
    auc: float | None = None


class Scores(_Part):
    """How good predictions were on one set of images."""

    images: int
    unknown: int = 0
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    balanced_accuracy_interval: tuple[float, float]
    macro_f1: float
    log_loss: float
    ece: float
    per_label: tuple[LabelScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: true labels (the last for unknown ones, if any); columns: predicted."""


class Judged(_Part):
    """A set of images, how it was judged, and the scores."""

    judged: str
    scores: Scores


class _File(_Part):
    revision: str
    figures: tuple[Judged, ...]


def figures_of(model: Model, shipped: Path | None = None) -> tuple[Judged, ...]:
    """The figures of exactly this revision; none where no file has them.

    ``shipped``: the folder of the model that came with Mien, for a copy that was installed before it had figures.
    """
    for folder in (model.folder, shipped):
        found = None if folder is None else _read(folder / FIGURES)
        if found is not None and found.revision == model.revision:
            return found.figures
    return ()


def _read(path: Path) -> _File | None:
    try:
        content: Any = json.loads(path.read_bytes())
        return _File.model_validate(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        log.warning("The figures of a model cannot be read from %s: %s", path, str(error).splitlines()[0])
        return None
