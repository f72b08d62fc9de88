"""Resident memory of processes, and whether the kernel has run out of it."""

from __future__ import annotations

from pathlib import Path

import psutil


def resident_bytes(pid: int | None = None) -> int | None:
    """Resident memory of a process (this one by default) in bytes; None if it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def oom_kills() -> int:
    """How often the kernel killed for want of memory in this process's control group (cgroup v2); 0 if unknown."""
    try:
        group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
        for place in (Path("/sys/fs/cgroup" + group), Path("/sys/fs/cgroup")):
            events = place / "memory.events"
            if events.exists():
                counts = dict(line.split() for line in events.read_text().splitlines())
                return int(counts.get("oom_kill", 0))
    except (OSError, ValueError):
        pass
    return 0
