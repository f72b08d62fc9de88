"""Learning rates: per layer (discriminative rates), over time (warm-up and cosine), by steps or by a time budget."""

from __future__ import annotations

import math
import re

from torch import nn

LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks)\.(\d+)\.")


def rate(step: int, progress: float, *, warmup: int, floor: float) -> float:
    """Factor on every learning rate: linear warm-up over ``warmup`` steps times a cosine from 1 to ``floor``.

    ``progress`` is the share of the run that is over, in steps or in time (0 to 1).
    """
    cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    return cosine * min(1.0, (step + 1) / warmup) if warmup else cosine


def parameter_groups(
    model: nn.Module, *, lr: float, layer_decay: float, weight_decay: float
) -> list[dict[str, object]]:
    """Optimiser groups: the head learns at ``lr``, each layer below at ``layer_decay`` times the one above.

    Embeddings count as the lowest layer. Vectors (norms, biases, layer scales) and embeddings take no weight decay, as
    is usual for transformers.
    """
    depths = [int(match[1]) for name, _ in model.named_parameters() if (match := LAYER.search(name))]
    top = max(depths, default=-1) + 2
    groups: dict[tuple[float, float], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        match = LAYER.search(name)
        level = int(match[1]) + 1 if match else (0 if "embed" in name else top)
        factor = lr * layer_decay ** (top - level)
        decay = 0.0 if parameter.ndim < 2 or "embed" in name else weight_decay
        group = groups.setdefault(
            (factor, decay), {"params": [], "lr": factor, "base_lr": factor, "weight_decay": decay}
        )
        members = group["params"]
        assert isinstance(members, list)  # noqa: S101 - for the type checker
        members.append(parameter)
    return list(groups.values())
