"""Which images make the batch of a step: a pure function of seed and step, so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch


def generator_for(*numbers: int) -> torch.Generator:
    """A generator seeded by a tuple of numbers (seed, step, purpose...)."""
    state = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]))


def batch_sizes(shares: Sequence[float], batch: int) -> list[int]:
    """Images of each root in a batch, by largest remainder; each root gets at least one."""
    exact = [share / sum(shares) * batch for share in shares]
    sizes = [max(1, int(size)) for size in exact]
    order = sorted(range(len(shares)), key=lambda i: exact[i] - int(exact[i]), reverse=True)
    for i in range(batch - sum(sizes)):
        sizes[order[i % len(order)]] += 1
    while sum(sizes) > batch:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def balance_weights(labels: npt.NDArray[np.int64], how: str) -> npt.NDArray[np.float64]:
    """Chance of each image: 1/count ("full") or 1/sqrt(count) ("sqrt") of its class."""
    values, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    del values
    weights = counts[inverse].astype(np.float64) ** (-0.5 if how == "sqrt" else -1.0)
    return np.asarray(weights / weights.sum())


class RootSampler:
    """Draws from one root: every image once per epoch, or by class weights."""

    def __init__(self, count: int, *, seed: int, root: int, weights: npt.NDArray[np.float64] | None = None) -> None:
        self.count, self.seed, self.root = count, seed, root
        self.weights = None if weights is None else torch.from_numpy(weights)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def draw(self, step: int, size: int) -> torch.Tensor:
        """Indices [size] of this root in the batch of ``step`` (all batches of the root have this size)."""
        if self.weights is not None:
            generator = generator_for(self.seed, step, self.root, 1)
            return torch.multinomial(self.weights, size, replacement=True, generator=generator)
        return torch.tensor([self._at(step * size + i) for i in range(size)])

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.count)
        if epoch != self._epoch:
            self._order = torch.randperm(self.count, generator=generator_for(self.seed, epoch, self.root, 2))
            self._epoch = epoch
        return int(self._order[offset])
