"""Metrics of predictions. The formulas are scikit-learn's, torchmetrics' and scipy's; here they are put together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest  # type: ignore[import-untyped]
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchmetrics.functional.classification import multiclass_calibration_error

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BOOTSTRAP = 2000


@dataclass(frozen=True)
class LabelScore:
    """One label against the others."""

    label: str
    precision: float
    recall: float
    f1: float
    images: int
    auc: float | None
    """One-vs-rest area under the ROC curve; None where the label or the rest is absent."""


@dataclass(frozen=True)
class Scores:
    """How good predictions are."""

    images: int
    unknown: int
    """Images of labels that the model does not have; errors in every accuracy, left out of AUC, log loss and ECE."""
    accuracy: float
    accuracy_interval: tuple[float, float]
    """Bootstrap, 95%."""
    balanced_accuracy: float
    balanced_accuracy_interval: tuple[float, float]
    macro_f1: float
    macro_precision: float
    macro_recall: float
    """Macro figures are means over the labels that occur."""
    macro_auc: float | None
    majority_accuracy: float
    """What naming the most frequent label every time would reach; its balanced accuracy is 1 / labels that occur."""
    log_loss: float
    ece: float
    """Expected calibration error against the one label, 15 bins."""
    per_label: tuple[LabelScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: true labels (the last for unknown ones, if any); columns: predicted."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def score(probabilities: Floats, truth: Ints, labels: tuple[str, ...], *, seed: int = 0) -> Scores:
    """Judge probabilities [N, L] against truth [N] (-1: a label that the model does not have)."""
    predicted = probabilities.argmax(axis=1)
    known = truth >= 0
    present = [i for i in range(len(labels)) if bool((truth == i).any())]
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=range(len(labels)), zero_division=0
    )
    aucs = [_auc(truth[known] == i, probabilities[known, i]) for i in range(len(labels))]
    rows = [*range(len(labels)), *([-1] if not known.all() else [])]
    table = confusion_matrix(truth, predicted, labels=[*range(len(labels)), -1])[: len(rows), : len(labels)]
    intervals = bootstrap(truth, predicted, seed=seed)
    p, t = probabilities[known], truth[known]
    found_aucs = [auc for auc in aucs if auc is not None]
    return Scores(
        images=len(truth),
        unknown=int((~known).sum()),
        accuracy=float(accuracy_score(truth, predicted)),
        accuracy_interval=intervals[0],
        balanced_accuracy=_balanced(truth, predicted),
        balanced_accuracy_interval=intervals[1],
        macro_f1=float(np.mean([f1[i] for i in present])) if present else float("nan"),
        macro_precision=float(np.mean([precision[i] for i in present])) if present else float("nan"),
        macro_recall=float(np.mean([recall[i] for i in present])) if present else float("nan"),
        macro_auc=float(np.mean(found_aucs)) if found_aucs else None,
        majority_accuracy=float(np.bincount(truth[known]).max() / len(truth)) if known.any() else 0.0,
        log_loss=float(log_loss(t, p, labels=range(len(labels)))) if len(t) else float("nan"),
        ece=expected_calibration_error(p, t) if len(t) else float("nan"),
        per_label=tuple(
            LabelScore(label, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]), aucs[i])
            for i, label in enumerate(labels)
        ),
        confusion=tuple(tuple(int(v) for v in row) for row in table),
    )


def expected_calibration_error(probabilities: Floats, truth: Ints) -> float:
    """Weighted mean over 15 bins of |confidence - accuracy| (Naeini et al. 2015; torchmetrics)."""
    return float(
        multiclass_calibration_error(
            torch.from_numpy(probabilities), torch.from_numpy(truth), num_classes=probabilities.shape[1], n_bins=15
        )
    )


def bootstrap(
    truth: Ints, predicted: Ints, *, rounds: int = BOOTSTRAP, seed: int = 0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95% percentile intervals of accuracy and balanced accuracy, drawing images with replacement."""
    random = np.random.default_rng(seed)
    values = np.unique(truth[truth >= 0])
    hits = truth == predicted
    accuracies, balanced = np.empty(rounds), np.empty(rounds)
    for i in range(rounds):
        drawn = random.integers(0, len(truth), len(truth))
        right, labels = hits[drawn], truth[drawn]
        accuracies[i] = right.mean()
        recalls = [right[labels == value].mean() for value in values if bool((labels == value).any())]
        balanced[i] = np.mean(recalls) if recalls else np.nan
    low, high = np.nanpercentile([accuracies, balanced], [2.5, 97.5], axis=1)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def mcnemar(truth: Ints, first: Ints, second: Ints) -> dict[str, float | int]:
    """McNemar's exact test on the same images: do two models err equally often (by scipy's binomial test)?"""
    only_first = int(((first == truth) & (second != truth)).sum())
    only_second = int(((first != truth) & (second == truth)).sum())
    total = only_first + only_second
    p = float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0
    return {"only_first_right": only_first, "only_second_right": only_second, "p_value": p}


def quick_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy (mean recall of the labels that occur) and log loss, for the training log.

    Args:
        logits: [N, L]; labels: [N], -1 for labels the model does not have: errors, left out of the log loss.
    """
    predicted, known = logits.argmax(dim=1).numpy(), labels.numpy()
    valid = labels >= 0
    return {
        "accuracy": float(accuracy_score(known, predicted)),
        "balanced_accuracy": _balanced(known, predicted),
        "log_loss": float(F.cross_entropy(logits[valid], labels[valid])) if bool(valid.any()) else float("nan"),
    }


def _balanced(truth: Ints, predicted: Ints) -> float:
    """Mean recall of the labels that occur; sklearn's own function warns where a predicted label is absent."""
    known = truth >= 0
    if known.all() and set(np.unique(predicted)) <= set(np.unique(truth)):
        return float(balanced_accuracy_score(truth, predicted))
    present = np.unique(truth[known])
    return float(recall_score(truth, predicted, labels=present, average="macro", zero_division=0))


def _auc(truth: npt.NDArray[np.bool_], scores: Floats) -> float | None:
    return float(roc_auc_score(truth, scores)) if truth.any() and not truth.all() else None
