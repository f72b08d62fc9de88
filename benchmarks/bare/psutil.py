"""Stands in for psutil on a bare Linux machine: resident memory out of /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Error(Exception):
    """The process is gone."""


class Memory(NamedTuple):
    """As psutil names it."""

    rss: int


class Process:
    """A process by its number; this one by default."""

    def __init__(self, pid: int | None = None) -> None:
        self.pid = pid or os.getpid()

    def memory_info(self) -> Memory:
        """Resident memory in bytes."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            raise Error from None
        return Memory(pages * os.sysconf("SC_PAGE_SIZE"))
