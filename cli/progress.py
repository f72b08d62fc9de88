"""A job's progress: a bar with rate and time left on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from cli.output import count, say, seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mien.wire import JobStatus

LINE_EVERY_S = 10.0


class JobProgress:
    """Shows each state of a job it is given. Writes to standard error only."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._shown_at = float("-inf")
        self._notice: str | None = None

    def __enter__(self) -> JobProgress:
        if sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task("waiting", total=None, rate="", left="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: JobStatus) -> None:
        """Show this state."""
        self._show_notice(job)
        if self._bar is None or self._task is None:
            self._show_line(job)
            return
        total = job.counts.total or None
        self._bar.update(
            self._task,
            description=_phase(job),
            total=total,
            completed=job.done,
            rate=f"{job.images_per_s:.1f} images/s" if job.images_per_s else "",
            left=f"{seconds(job.eta_s)} left" if job.eta_s is not None and not job.is_final else "",
        )

    def _show_line(self, job: JobStatus) -> None:
        now = time.monotonic()
        if now - self._shown_at < LINE_EVERY_S and not job.is_final:
            return
        self._shown_at = now
        rate = f", {job.images_per_s:.1f} images/s" if job.images_per_s else ""
        left = f", {seconds(job.eta_s)} left" if job.eta_s is not None and not job.is_final else ""
        say(f"{_phase(job)}: {job.done:,} of {count(job.counts.total, 'image')}{rate}{left}")

    def _show_notice(self, job: JobStatus) -> None:
        notice = job.notice.detail if job.notice else None
        if notice != self._notice:
            self._notice = notice
            if notice:
                (self._bar.console.print if self._bar is not None else say)(f"note: {notice}")


def _phase(job: JobStatus) -> str:
    return {
        "queued": "waiting",
        "expanding": "looking for images",
        "running": "classifying",
        "cancelling": "cancelling",
    }.get(job.status, job.status)


def _make_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True, highlight=False),
    )
