"""Metrics of predictions. The formulas are scikit-learn's and torchmetrics'; here they are only put together."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, recall_score
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def quick_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy (mean recall of the labels that occur) and log loss, for the training log.

    Args:
        logits: [N, L]; labels: [N], -1 for labels the model does not have: errors in accuracy, left out of the log loss.
    """
    predicted, known = logits.argmax(dim=1).numpy(), labels.numpy()
    present = np.unique(known[known >= 0])
    valid = labels >= 0
    return {
        "accuracy": float(accuracy_score(known, predicted)),
        "balanced_accuracy": float(recall_score(known, predicted, labels=present, average="macro", zero_division=0)),
        "log_loss": float(F.cross_entropy(logits[valid], labels[valid])) if bool(valid.any()) else float("nan"),
    }
