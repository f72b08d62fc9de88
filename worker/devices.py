"""What this machine can compute on, found out without importing torch."""

from __future__ import annotations

import importlib.util
import os

from mien.int8 import int8_instructions
from mien.model_folder import DEVICE_PRECISIONS
from worker.gpus import gpu_count, lowest_capability

BF16_CAPABILITY = 8.0


def choose_device(setting: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes CUDA where an NVIDIA device and torch are there."""
    if setting != "auto":
        return setting
    return "cuda" if gpu_count() and importlib.util.find_spec("torch") is not None else "cpu"


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def engine_count(setting: int) -> int:
    """Engine processes (on CUDA those that decode): as set, else one per core."""
    return setting or core_count()


def precisions_of(device: str) -> tuple[str, ...]:
    """The precisions that workers on this device take jobs in: int8 only where it answers as on other machines, bf16
    only where every GPU computes in it (compute capability 8; older ones imitate it slowly, and have fp16)."""
    unfit = set()
    if device == "cpu" and not int8_instructions():
        unfit.add("int8")
    if device == "cuda" and (lowest_capability() or BF16_CAPABILITY) < BF16_CAPABILITY:
        unfit.add("bf16")
    return tuple(name for name in DEVICE_PRECISIONS[device] if name not in unfit)
