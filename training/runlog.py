"""What a run tells: a line now and then with loss, rate and time left, CSV files, and plots at the end."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path

STEPS, VALIDATIONS = "steps.csv", "validations.csv"
_EVERY_S = 20.0
_SMOOTH = 0.98


class RunLog:
    """Writes ``steps.csv`` and ``validations.csv`` in the run's folder and says how it goes."""

    def __init__(self, folder: Path, *, resume: bool, say: Callable[[str], None], batch: int) -> None:
        self.folder, self.say, self.batch = folder, say, batch
        self._loss: float | None = None
        self._told, self._rows = 0.0, 0
        self._last: tuple[float, int] | None = None
        for name, header in ((STEPS, ("step", "loss", "lr", "seconds")), (VALIDATIONS, _HEADER)):
            if not (resume and (folder / name).exists()):
                _append(folder / name, header, fresh=True)

    def step(self, step: int, loss: float, lr: float, seconds: float, progress: float) -> None:
        """Note one step; every tenth goes into the CSV, and every 20 seconds a line is said."""
        self._loss = loss if self._loss is None else _SMOOTH * self._loss + (1 - _SMOOTH) * loss
        if step % 10 == 0:
            _append(self.folder / STEPS, (step, f"{self._loss:.5f}", f"{lr:.3e}", f"{seconds:.1f}"))
        now = time.monotonic()
        if now - self._told < _EVERY_S:
            return
        pace = ""
        if self._last is not None and seconds > self._last[0]:
            pace = f"  {(step - self._last[1]) * self.batch / (seconds - self._last[0]):.0f} images/s"
        left = seconds * (1 - progress) / progress if progress > 0 else 0.0
        self.say(f"step {step}  {100 * progress:.1f}%  loss {self._loss:.4f}  rate {lr:.2e}{pace}  {_clock(left)} left")
        self._told, self._last = now, (seconds, step)

    def validation(self, step: int, metrics: dict[str, dict[str, float]], seconds: float) -> None:
        """Note metrics per root."""
        for root, values in metrics.items():
            row = (step, root, *(f"{values[name]:.5f}" for name in _HEADER[2:-1]), f"{seconds:.1f}")
            _append(self.folder / VALIDATIONS, row)
            self.say(
                f"step {step}  {root}: accuracy {100 * values['accuracy']:.2f}%  balanced "
                f"{100 * values['balanced_accuracy']:.2f}%  log loss {values['log_loss']:.4f}"
            )

    def finish(self, step: int, metrics: dict[str, dict[str, float]], seconds: float) -> None:
        """Note the end and draw the plots."""
        self.say(f"finished after {step} steps in {_clock(seconds)}")
        for root, values in metrics.items():
            self.say(f"kept weights, {root}: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
        from training.plots import run_plots  # noqa: PLC0415 - only at the end

        run_plots(self.folder)


_HEADER = ("step", "root", "accuracy", "balanced_accuracy", "log_loss", "seconds")


def _append(path: Path, row: tuple[object, ...], *, fresh: bool = False) -> None:
    with path.open("w" if fresh else "a", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerow(row)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}"
