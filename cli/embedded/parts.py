"""One part of an embedded Mien: a child process that is watched, started again with back-off, and stopped with care."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cli.embedded.leftovers import MARK, kill_group

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
HEALTHY_AFTER_S = 60.0
"""A part that lived so long begins again with the shortest back-off."""
LARGEST_LOG_BYTES = 20 << 20
POLL_S = 0.05
KEPT_ENVIRONMENT = {"SPT_NOENV": "1"}
"""Celery and gunicorn give their processes a title where setproctitle is installed; it would write it over the mark."""
_ERROR = re.compile(r"(?:[A-Za-z_][\w.]*\.)?(?:[A-Za-z_]\w*(?:Error|Exception)): (\S.*)")
"""The last line of a traceback."""


@dataclass
class Part:
    """A child process of the supervisor, in a session of its own so that Ctrl-C reaches the supervisor alone."""

    name: str
    command: Sequence[str]
    identity: str
    folder: Path
    log: Path
    grace_s: float
    environment: dict[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()
    prepare: Callable[[], None] | None = None
    """Called before each start."""
    process: psutil.Process | None = None
    started_at: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    _child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; its output is appended to the log."""
        if self.prepare:
            self.prepare()
        shorten_log(self.log)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self.environment, **KEPT_ENVIRONMENT, MARK: f"{self.name}@{self.identity}"},
                start_new_session=True,
                pass_fds=tuple(self.descriptors),
            )
        self.process = psutil.Process(self._child.pid)
        self.started_at = time.monotonic()

    def adopt(self, process: psutil.Process) -> None:
        """Take over a process of this part that an earlier supervisor left running."""
        self.process, self._child = process, None
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int | None:
        """The number of the process that runs now."""
        return self.process.pid if self.is_running() and self.process else None

    def is_running(self) -> bool:
        """Whether the process lives."""
        if self._child is not None:
            return self._child.poll() is None
        return self.process is not None and self.process.is_running()

    def ending(self) -> str:
        """How the process ended, for people."""
        code = self._child.returncode if self._child is not None else None
        if code is None:
            return "is gone"
        if code < 0:
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with code {code}"

    def plan_restart(self) -> float:
        """After its end: clear away what is left of its group and give the seconds until it is due again."""
        if self.process is not None:
            kill_group(self.process.pid)
        self.process, self._child = None, None
        lived = time.monotonic() - self.started_at
        self.failures = 1 if lived > HEALTHY_AFTER_S else self.failures + 1
        wait: float = min(FIRST_BACKOFF_S * 2.0 ** (self.failures - 1), LONGEST_BACKOFF_S)
        self.retry_at = time.monotonic() + wait
        return wait

    def is_due(self) -> bool:
        """Whether it is down and its back-off is over."""
        return self.process is None and time.monotonic() >= self.retry_at

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Ask it to end, wait up to its grace (or until ``hurry``), then kill its group. True if it ended by itself."""
        process = self.process
        if process is None:
            return True
        with suppress(psutil.Error):
            process.terminate()
        deadline = time.monotonic() + self.grace_s
        while self.is_running() and time.monotonic() < deadline and not hurry():
            time.sleep(POLL_S)
        in_time = not self.is_running()
        kill_group(process.pid)
        if self._child is not None:
            self._child.wait()
        self.process, self._child = None, None
        return in_time

    def last_words(self) -> str:
        """What its log says last: the last error that has a sentence, else the last line."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 16384))
                lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except OSError:
            return ""
        errors = [match.group(1) for line in lines if (match := _ERROR.match(line))]
        return (errors or lines or [""])[-1][:300]


def shorten_log(log: Path) -> None:
    """Keep a log that has grown too long as ``.old`` and go on in an empty one (whoever writes to it appends)."""
    with suppress(OSError):
        if log.stat().st_size > LARGEST_LOG_BYTES:
            old = log.with_suffix(log.suffix + ".old")
            old.write_bytes(log.read_bytes())
            os.truncate(log, 0)
