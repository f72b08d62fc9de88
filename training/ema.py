"""The exponential moving average of a model's weights, which generalises better than the last step's."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """Keeps ``shadow``, a copy of ``model`` whose weights follow it slowly.

    The decay starts low, min(decay, (1 + t) / (10 + t)), so that the random start is forgotten fast.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow = copy.deepcopy(model).eval()
        for parameter in self.shadow.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average one step towards ``model``."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.shadow.parameters()), list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.shadow.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
