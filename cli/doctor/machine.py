"""What there is: Python, formats that can be read, processor, memory, limits of the system."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.doctor.finding import Finding

if TYPE_CHECKING:
    from mien.settings import Settings

OLDEST, NEWEST = (3, 11), (3, 14)
PROCESSOR_FLAGS = {"AVX2": "avx2", "AVX-512 VNNI": "avx512_vnni", "AMX": "amx_tile"}
GIB = 1 << 30
ENGINE_BYTES = 300 << 20
"""Memory that an engine with the shipped model and a large photograph takes (207 MiB with the session alone, fp32)."""
PARTS_BYTES = 400 << 20
"""The rest of an embedded Mien (docs/benchmarks.md, Memory over a large job)."""
BASE_FILES = 64
FILES_EACH = 4
"""What an engine holds (its pipes), and a thread of the front end (a caller, SQLite's three files)."""


def python() -> Iterator[Finding]:
    """Whether this Python is one that Mien is made for."""
    version = platform.python_version()
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        yield Finding("ok", "python", f"{version} ({sys.executable}) on {platform.platform()}")
    else:
        yield Finding("bad", "python", f"{version} is not supported", "install Python 3.11 to 3.14 and Mien for it")


def readable_formats() -> tuple[list[str], list[str]]:
    """The formats of images that can be read here, and those that cannot."""
    from PIL import features

    have = ["BMP", "GIF", "PNG"]
    missing: list[str] = []
    for name, feature in (("JPEG", "jpg"), ("TIFF", "libtiff"), ("WebP", "webp"), ("AVIF", "avif")):
        (have if features.check(feature) else missing).append(name)
    try:
        import pi_heif  # noqa: F401 - whether it can be loaded is the question

        have.append("HEIC")
    except ImportError:
        missing.append("HEIC")
    return sorted(have), missing


def formats(_: Settings) -> Iterator[Finding]:
    """Which images can be read."""
    have, missing = readable_formats()
    if missing:
        mend = f"images of these kinds become `failed`; install a Pillow (or pi-heif) that reads {', '.join(missing)}"
        yield Finding("note", "formats", f"{', '.join(have)}; not {', '.join(missing)}", mend)
    else:
        yield Finding("ok", "formats", ", ".join(have))


def processor_features() -> list[str]:
    """What makes this processor fast, by the names people know."""
    from mien.int8 import processor_flags

    flags = processor_flags()
    return [shown for shown, flag in PROCESSOR_FLAGS.items() if flag in flags]


def processor(settings: Settings) -> Iterator[Finding]:
    """What computes, and whether a GPU stands by unused or is asked for in vain."""
    from worker.devices import choose_device, core_count, engine_count
    from worker.gpus import gpu_count

    device = choose_device(settings.device)
    special = processor_features()
    shown = f"{core_count()} cores{' with ' + ', '.join(special) if special else ''} ({platform.machine()})"
    engines = engine_count(settings.engines)
    yield Finding("ok", "processor", f"{shown}; {engines} engine{'s' if engines > 1 else ''} on {device}")
    if gpu_count() and device == "cpu":
        mend = "install the extra: pip install 'mien[cuda]'; or MIEN_DEVICE=cpu if that is what you want"
        yield Finding("note", "gpu", f"{gpu_count()} NVIDIA device(s), not used: torch is not installed", mend)
    if device == "cuda" and not gpu_count() and "cpu" not in settings.devices:
        mend = "MIEN_DEVICE=auto takes the CPU; for a GPU look at `nvidia-smi` (in a container: `--gpus all`)"
        yield Finding("bad", "gpu", "MIEN_DEVICE is cuda, but this process sees no NVIDIA device", mend)


def memory(settings: Settings) -> Iterator[Finding]:
    """Whether the free memory holds the engines."""
    import psutil

    from worker.devices import engine_count

    engines = engine_count(settings.engines)
    free, needed = psutil.virtual_memory().available, engines * ENGINE_BYTES + PARTS_BYTES
    shown = f"{free / GIB:.1f} GiB free; {engines} engine{'s' if engines > 1 else ''} may take {needed / GIB:.1f} GiB"
    if free >= needed:
        yield Finding("ok", "memory", shown)
        return
    fit = max(1, (free - PARTS_BYTES) // ENGINE_BYTES)
    yield Finding("note", "memory", shown, f"end other programs, or run fewer: MIEN_ENGINES={fit}")


def open_files(settings: Settings) -> Iterator[Finding]:
    """Whether a process may open enough files and connections at once."""
    import resource

    from worker.devices import engine_count

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = BASE_FILES + FILES_EACH * (engine_count(settings.engines) + settings.web_threads)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield Finding("ok", "open files", f"{'any number' if soft == resource.RLIM_INFINITY else soft} per process")
        return
    mend = f"raise it where Mien is started: ulimit -n {max(needed, 1024)} (systemd: LimitNOFILE)"
    yield Finding("bad", "open files", f"a process may open {soft}; Mien may need {needed}", mend)
