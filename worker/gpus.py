"""The GPUs that this process may see, found out without importing torch."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
from functools import cache


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls each NVIDIA device that this process may see."""
    found = len(glob.glob("/dev/nvidia[0-9]*"))  # noqa: PTH207 - device files, not paths of ours
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(number) for number in range(found)]
    return [name.strip() for name in visible.split(",") if name.strip()][:found]


def gpu_count() -> int:
    """NVIDIA devices that this process may see."""
    return len(visible_gpus())


@cache
def lowest_capability() -> float | None:
    """The lowest compute capability of the GPUs in sight, as the driver's own tool tells it; None if it does not."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=index,uuid,compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_capabilities(said, visible_gpus())


def parse_capabilities(said: str, visible: list[str]) -> float | None:
    """Read what ``nvidia-smi`` said (index, UUID, capability), keeping the devices that are visible."""
    found = []
    for line in said.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and (parts[0] in visible or any(item and parts[1].startswith(item) for item in visible)):
            with contextlib.suppress(ValueError):
                found.append(float(parts[2]))
    return min(found, default=None)
