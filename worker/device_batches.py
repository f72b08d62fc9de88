"""Batches on a device: how large they are, how they get there and back.

Batches have a few fixed shapes; a smaller number of crops is padded to the next. The largest shape is found out when a
classifier is loaded, halved when the device runs out of memory, and grown again when it has gone well for a while.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from worker.probabilities import Floats
from worker.torch_classifier import TorchNetwork

if TYPE_CHECKING:
    from mien.images import RGB

SHAPES = (8, 32, 128)
"""Shapes below the largest."""
CANDIDATES = {"cuda": (32, 64, 128, 256, 512), "cpu": (8, 16)}
"""Largest shapes that are tried, per device type."""
GOOD_ENOUGH = 0.97
"""The smallest batch with this share of the best rate is taken: larger ones only wait longer."""
WORTH_TRYING = 1.02
"""A candidate that is not this much faster than the best before it ends the trial."""
GROW_AFTER = 64
"""Full batches that have to go well before a halved size is doubled; twice as many after each further halving."""
LONGEST_PATIENCE = 4096
_TRIAL_S = 0.1


class BatchSize:
    """The largest batch of one classifier, now."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.now = most
        self._went_well = 0
        self._patience = GROW_AFTER // 2

    @property
    def shapes(self) -> tuple[int, ...]:
        """The fixed shapes, ascending; the last is the largest now."""
        return (*(shape for shape in SHAPES if shape < self.now), self.now)

    def shape_for(self, count: int) -> int:
        """The shape that ``count`` crops are padded to; more than the largest (it was just halved) are not padded."""
        return next((shape for shape in self.shapes if shape >= count), count)

    def too_large(self, shape: int) -> bool:
        """The device ran out of memory on ``shape``. False if that was a single crop: nothing is left to halve."""
        if shape <= 1:
            return False
        self.now = min(self.now, max(shape // 2, 1))
        self._went_well = 0
        self._patience = min(2 * self._patience, LONGEST_PATIENCE)
        return True

    def went_well(self, shape: int) -> None:
        """A batch of ``shape`` was classified."""
        if shape < self.now or self.now == self.most:
            return
        self._went_well += 1
        if self._went_well >= self._patience:
            self._went_well = 0
            self.now = min(2 * self.now, self.most)


class Lane:
    """One batch's way to the device and back: page-locked buffers on the host, a copy on a stream of its own.

    Several lanes of a network overlap: while one computes, the next is filled and copied.
    """

    def __init__(self, network: TorchNetwork, most: int) -> None:
        """``most``: the largest shape."""
        torch = self._torch = _torch()
        self._network = network
        spec = network.model.input
        self._cuda = network.device.type == "cuda"
        sizes = (most, spec.height, spec.width, 3)
        self._pixels = torch.zeros(sizes, dtype=torch.uint8, pin_memory=self._cuda)
        self._logits = torch.zeros((most, len(network.model.labels)), dtype=torch.float32, pin_memory=self._cuda)
        self._rows = self._pixels.numpy()
        self._on_device = torch.zeros(sizes, dtype=torch.uint8, device=network.device) if self._cuda else self._pixels
        self._side = torch.cuda.Stream(network.device) if self._cuda else None
        self._begun, self._done = (_event(torch, self._cuda) for _ in range(2))
        self._count = 0
        self._seconds = 0.0

    def launch(self, crops: Sequence[RGB], shape: int) -> None:
        """Begin a batch: ``crops`` (each H x W x 3, uint8) padded to ``shape``. Does not wait for the device."""
        for row, crop in zip(self._rows, crops, strict=False):
            row[:] = crop
        self._count = len(crops)
        started = time.perf_counter()
        pixels = self._on_device[:shape]
        with self._torch.cuda.stream(self._side) if self._cuda else contextlib.nullcontext():
            if self._cuda:
                pixels.copy_(self._pixels[:shape], non_blocking=True)
                self._copied = self._torch.cuda.Event()
                self._copied.record(self._side)
        if self._cuda:
            self._torch.cuda.current_stream(self._network.device).wait_event(self._copied)
            self._begun.record()
        logits = self._network.logits(pixels)
        self._logits[:shape].copy_(logits, non_blocking=True)
        if self._cuda:
            self._done.record()
        self._seconds = time.perf_counter() - started

    def collect(self) -> tuple[Floats, float]:
        """Wait for the batch: the logits of its crops (N x labels), and the seconds that the device spent on it."""
        if self._cuda:
            self._done.synchronize()
            self._seconds = self._begun.elapsed_time(self._done) / 1000
        logits: Floats = self._logits[: self._count].numpy().copy()
        return logits, self._seconds


def largest_batch(network: TorchNetwork, sign: Callable[[], None]) -> int:
    """Try batches of growing size and give the smallest that is about as fast as the fastest.

    ``sign`` is called before each trial. A size that does not fit into the device's memory ends the trials.
    """
    rates: dict[int, float] = {}
    for size in CANDIDATES[network.device.type]:
        sign()
        try:
            rate = measure_rate(network, size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            free_memory(network)
            break
        best = max(rates.values(), default=0.0)
        rates[size] = rate
        if rate < WORTH_TRYING * best:
            break
    if not rates:
        return 1
    return min(size for size, rate in rates.items() if rate >= GOOD_ENOUGH * max(rates.values()))


def measure_rate(network: TorchNetwork, size: int, seconds: float = _TRIAL_S) -> float:
    """Crops per second of batches of ``size`` that lie on the device; after one batch to warm up."""
    import torch  # noqa: PLC0415

    spec = network.model.input
    pixels = torch.full((size, spec.height, spec.width, 3), 127, dtype=torch.uint8, device=network.device)
    network.logits(pixels).cpu()
    started = time.perf_counter()
    batches = 0
    while True:
        logits = network.logits(pixels)
        batches += 1
        if batches % 2 == 0 or network.device.type == "cpu":
            logits.cpu()  # waits for the device
            if (spent := time.perf_counter() - started) >= seconds:
                return size * batches / spent


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device (or the CPU in its place) lacked the memory for a batch."""
    import torch  # noqa: PLC0415

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("out of memory", "not enough memory", "ALLOC_FAILED")
    )


def free_memory(network: TorchNetwork) -> None:
    """Give memory that torch keeps for later back to the device."""
    import torch  # noqa: PLC0415

    if network.device.type == "cuda":
        torch.cuda.empty_cache()


def _event(torch: Any, cuda: bool) -> Any:
    return torch.cuda.Event(enable_timing=True) if cuda else None


def _torch() -> Any:
    """torch, whose streams and events have no types."""
    import torch  # noqa: PLC0415

    return torch
