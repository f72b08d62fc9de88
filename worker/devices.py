"""What this machine can compute on, found out without importing torch."""

from __future__ import annotations

import glob
import importlib.util
import os

from mien.control import DEVICE_PRECISIONS


def choose_device(setting: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes CUDA where an NVIDIA device and torch are there."""
    if setting != "auto":
        return setting
    return "cuda" if gpu_count() and importlib.util.find_spec("torch") is not None else "cpu"


def gpu_count() -> int:
    """NVIDIA devices that this process may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(glob.glob("/dev/nvidia[0-9]*"))  # noqa: PTH207 - device files, not paths of ours
    return found if visible is None else min(found, len([v for v in visible.split(",") if v.strip()]))


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def engine_count(device: str, setting: int) -> int:
    """Engine processes: as set, else one per core on the CPU and one per GPU."""
    return setting or (core_count() if device == "cpu" else max(gpu_count(), 1))


def precisions_of(device: str) -> tuple[str, ...]:
    """The precisions that workers on this device take jobs in."""
    return DEVICE_PRECISIONS[device]
