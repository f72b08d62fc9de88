"""How every engine process begins: deaf to the terminal's signals, and bound to the life of its supervisor."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import warnings

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def begin_life(parent: int) -> None:
    """Called first in an engine process; ``parent`` is the supervisor's process id."""
    faulthandler.enable()
    warnings.simplefilter("ignore")  # what stays on stderr is what explains an engine's end
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    _die_with_parent(parent)


def _die_with_parent(parent: int) -> None:
    """On Linux the kernel ends this process with its parent, even while native code holds the interpreter."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
