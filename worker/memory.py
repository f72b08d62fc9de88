"""Resident memory of a process, without a library."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None = None) -> int | None:
    """Resident memory of a process (this one by default) in bytes; None if it is gone or the system does not say."""
    try:
        return int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None if Path("/proc/self").exists() else _by_ps(pid or os.getpid())


def _by_ps(pid: int) -> int | None:
    try:
        out = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
        return int(out.stdout) * 1024
    except (OSError, ValueError, subprocess.TimeoutExpired):
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
