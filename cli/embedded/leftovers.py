"""Processes of an embedded Mien, found by the mark in their environment; and how to end them.

The mark names the part and the data folder, and children (engines, the front end's threads' process) inherit it. It
cannot go stale like a recorded process number, and covers what died before it could be recorded.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

MARK = "_MIEN_PART"
"""Environment variable of every part: ``worker@<identity of the data folder>``."""
ORDER = ("web", "worker", "control", "broker")
"""The order in which the parts of a system stop: no new work first, the doorbells last."""
KILL_S = 5.0


@dataclass(frozen=True)
class Leftover:
    """The first process of a part; the others of the part are in its process group."""

    part: str
    process: psutil.Process


def find(identity: str) -> list[Leftover]:
    """The parts of this data folder that live, in the order in which they stop."""
    found = []
    for process in psutil.process_iter():
        part = _part(process, identity)
        if part is not None and _leads(process.pid):
            found.append(Leftover(part, process))
    return sorted(found, key=lambda leftover: ORDER.index(leftover.part))


def end(
    leftovers: list[Leftover], *, grace_s: float, identity: str, report: Callable[[str], None] = lambda _: None
) -> None:
    """Stop each part in order: ask, wait up to ``grace_s``, then kill its whole group; then whatever else is marked."""
    for leftover in leftovers:
        report(f"stopping a {leftover.part} left over from an earlier run (process {leftover.process.pid})")
        with suppress(psutil.Error):
            leftover.process.terminate()
            psutil.wait_procs([leftover.process], timeout=grace_s)
        kill_group(leftover.process.pid)
    parts = {leftover.part for leftover in leftovers}
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline:
        rest = [p for p in psutil.process_iter() if _part(p, identity) in parts]
        if not rest:
            return
        for process in rest:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(rest, timeout=1)


def kill_group(pid: int) -> None:
    """Kill what is left of a part whose first process was ``pid``."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _part(process: psutil.Process, identity: str) -> str | None:
    try:
        if process.uids().real != os.getuid():
            return None
        part, _, owner = process.environ().get(MARK, "").partition("@")
        if not part and any(f"-{identity}/broker.sock" in argument for argument in process.cmdline()):
            part, owner = "broker", identity  # the server's title hides its environment
        zombie = process.status() == psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return None
    return part if owner == identity and part in ORDER and not zombie else None


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False
