"""A test hook: faults on demand, so that the reliability tests can watch real engines crash, hang and swell.

``MIEN_FAULTS="crash:poison_crash*.jpg,hang:poison_hang*.jpg,oom:poison_oom*"`` makes an engine fail on images whose
file name matches; ``device_crash:...`` and so on make the device engine fail on the image's crops. Only engines read
it; without it nothing here runs.
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


def device_fault(faults: list[tuple[str, bytes]], path: bytes) -> str:
    """The fault that the device engine is to commit on this image: ``crash`` for ``device_crash``; mostly none."""
    name = path.rpartition(b"/")[2]
    asked = (what for what, pattern in faults if what.startswith("device_") and fnmatch.fnmatchcase(name, pattern))
    return next(asked, "").removeprefix("device_")


def commit_device_fault(what: str, batch: int) -> None:
    """Fail now as asked; ``full4``: as a device whose memory holds batches of 4 and no more."""
    if what.startswith("full"):
        if batch > int(what.removeprefix("full")):
            raise MemoryError("a test asks for a device that is full")
    else:
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
