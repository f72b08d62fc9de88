"""How every engine process begins: deaf to the terminal's signals, and bound to the life of its supervisor."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol, TypeVar

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def begin_life(parent: int) -> None:
    """Called first in an engine process; ``parent`` is the supervisor's process id."""
    faulthandler.enable()
    warnings.simplefilter("ignore")  # what stays on stderr is what explains an engine's end
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    _die_with_parent(parent)


class Config(Protocol):
    """What every engine is told at its start."""

    @property
    def parent(self) -> int:
        """The supervisor's process id."""
        ...


C = TypeVar("C", bound=Config)


def live(arguments: list[str], config_of: Callable[..., C], serve: Callable[[Connection, C], None]) -> None:
    """The life of an engine process: ``arguments`` are the descriptor of its pipe and its configuration as JSON."""
    config = config_of(**json.loads(arguments[1]))
    begin_life(config.parent)
    pipe = Connection(int(arguments[0]))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(pipe, config)
    pipe.close()
    os._exit(0)


def _die_with_parent(parent: int) -> None:
    """On Linux the kernel ends this process with its parent, even while native code holds the interpreter."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
