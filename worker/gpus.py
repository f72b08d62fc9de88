"""The GPUs that this process may see, found out without importing torch."""

from __future__ import annotations

import glob
import os


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
