"""A test hook: faults on demand, so that the reliability tests can watch real engines crash, hang and swell.

``MIEN_FAULTS="crash:poison_crash*.jpg,hang:poison_hang*.jpg,oom:poison_oom*"`` makes an engine fail on images whose
file name matches. Only engines read it; without it nothing here runs.
"""

from __future__ import annotations

import ctypes
import fnmatch
import os
import re
import signal
import time

VARIABLE = "MIEN_FAULTS"


def read_faults() -> list[tuple[str, bytes]]:
    """(what happens, file name pattern) of each fault that is asked for."""
    faults = []
    for entry in os.environ.get(VARIABLE, "").split(","):
        what, colon, pattern = entry.partition(":")
        if colon:
            faults.append((what.strip(), os.fsencode(pattern.strip())))
    return faults


def commit_faults(faults: list[tuple[str, bytes]], path: bytes) -> None:
    """Fail now if ``path`` is one of those."""
    name = path.rpartition(b"/")[2]
    for what, pattern in faults:
        if fnmatch.fnmatchcase(name, pattern):
            _commit(what)


def _commit(what: str) -> None:
    if what == "crash":
        ctypes.string_at(0)  # a segmentation fault, as a broken decoder would cause
    elif what == "abort":
        os.abort()
    elif what == "exit":
        os._exit(3)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
    elif what == "hang":
        re.match(r"(a+)+$", "a" * 200 + "b")  # native code that never returns and never lets another thread run
    elif what == "slow":
        time.sleep(0.02)
    elif what == "oom":
        hoard = []
        while True:
            hoard.append(bytearray(b"x") * (16 << 20))
