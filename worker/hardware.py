"""What a worker says of its processor or GPUs: their names, and the memory of GPUs as the driver tells it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from worker.gpus import visible_gpus

NVIDIA_SMI_S = 5.0
_MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """One GPU: its number as the driver counts, its name, bytes in use (by anyone) and altogether."""

    number: int
    name: str
    used_bytes: int
    total_bytes: int


def gpus() -> list[Gpu]:
    """The GPUs that this process may see; none where there is no ``nvidia-smi`` or it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-gpu=index,uuid,name,memory.used,memory.total"
    try:
        said = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(said, visible_gpus())


def parse_gpus(said: str, visible: list[str]) -> list[Gpu]:
    """Read what ``nvidia-smi`` said, MiB in its last two columns, keeping the devices that are visible."""
    found = []
    for line in said.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 5 or not all(part.isdigit() for part in (parts[0], *parts[3:])):
            continue  # a GPU that does not tell ([N/A])
        number, uuid, name, used, total = parts
        if number in visible or any(item and uuid.startswith(item) for item in visible):
            found.append(Gpu(int(number), name, int(used) * _MIB, int(total) * _MIB))
    return found


@cache
def device_name(device: str) -> str | None:
    """How the device calls itself, with how many there are of it; asked once."""
    if device == "cuda":
        names = [gpu.name for gpu in gpus()]
        return f"{len(names)} x {names[0]}" if len(names) > 1 else next(iter(names), None)
    return _cpu_name()


def _cpu_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine() or None
