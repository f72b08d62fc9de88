"""What ``mien doctor`` finds, and the commands it asks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mien.settings import Settings

Look = Callable[["Settings"], Iterator["Finding"]]
COMMAND_S = 30
NO_MEND = ""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``mend`` says what to do where it is not ``ok``."""

    state: Literal["ok", "note", "bad"]
    name: str
    found: str
    mend: str = NO_MEND


def output_of(command: list[str], environment: Mapping[str, str] | None = None) -> str | None:
    """What a command says; None where it cannot be run, fails, or takes longer than half a minute."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=True, env=environment or os.environ
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
