"""Targets and losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody uses


def soft_cross_entropy(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, focal: float = 0.0) -> Tensor:
    """Mean over the batch of -sum_c w_c t_c (1 - p_c)^focal log p_c.

    Args:
        logits: [N, L]; targets: [N, L] probabilities; weights: [L] or None; focal: exponent of the focal form
            (Lin et al. 2017, arXiv:1708.02002), 0 for plain cross entropy.
    """
    log_p = F.log_softmax(logits.float(), dim=-1)
    terms = targets * log_p
    if focal:
        terms = terms * (1 - log_p.exp()).pow(focal)
    if weights is not None:
        terms = terms * weights
    return -terms.sum(dim=-1).mean()


def smooth(targets: Tensor, amount: float) -> Tensor:
    """Label smoothing: (1 - amount) targets + amount / L."""
    return targets if amount == 0 else targets * (1 - amount) + amount / targets.shape[-1]


def mixup(images: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix each image and target with another of the batch (Zhang et al. 2018, arXiv:1710.09412), one weight a batch."""
    first, second = (torch._standard_gamma(torch.tensor([alpha]), generator=generator) for _ in range(2))
    lam = float(first / (first + second).clamp_min(1e-9))
    lam = max(lam, 1 - lam)
    order = torch.randperm(len(images), generator=generator)
    return images.lerp(images[order], 1 - lam), targets.lerp(targets[order], 1 - lam)


def class_weights(counts: Tensor, how: str) -> Tensor | None:
    """Weights [L] proportional to 1/count ("full") or 1/sqrt(count) ("sqrt"), mean 1 over images; None for "none"."""
    if how == "none":
        return None
    weights = counts.clamp_min(1).float().pow(-0.5 if how == "sqrt" else -1.0)
    weights[counts == 0] = 0
    return weights * counts.sum() / (weights * counts).sum()
