"""What an engine's end says about the image that it held alone."""

from __future__ import annotations

import signal
from dataclasses import dataclass

GUILTY = 4
"""Points at which an image has failed. An end that only the image can have caused counts two: two such ends. One that
anybody may have caused (SIGKILL: an operator, the kernel) counts one, so that a run of them fails nobody."""


@dataclass(frozen=True)
class Verdict:
    """Why an engine ended, as an image's error, and how many points it puts on the image that was alone in it."""

    code: str
    detail: str
    points: int


def judge(
    return_code: int,
    killed_for: str | None,
    timeout_s: float,
    limit_bytes: int,
    oom_killed: bool,
    *,
    doing: str = "Reading",
) -> Verdict:
    """The verdict on an engine's end; ``killed_for`` is why the supervisor killed it, None if it did not; ``doing`` is
    what the engine does with an image."""
    if killed_for == "timeout":
        return Verdict("timeout", f"{doing} the image took longer than {timeout_s:g} s (MIEN_IMAGE_TIMEOUT_S).", 2)
    if killed_for == "memory":
        return Verdict("out_of_memory", f"{doing} the image took more than {limit_bytes >> 20} MiB of memory.", 2)
    if oom_killed and return_code == -signal.SIGKILL:
        return Verdict("out_of_memory", "The system ended the engine for want of memory while it had the image.", 2)
    if return_code == -signal.SIGKILL:
        return Verdict("engine_crashed", "The engine was killed each time while it had the image (SIGKILL).", 1)
    if return_code < 0:
        return Verdict("engine_crashed", f"{doing} the image crashes the engine ({_signal_name(-return_code)}).", 2)
    return Verdict("engine_crashed", f"{doing} the image ends the engine (exit code {return_code}).", 2)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
