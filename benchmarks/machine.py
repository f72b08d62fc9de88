"""What a table was measured on, and its place in the page."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path

from mien.int8 import int8_instructions
from worker.devices import core_count

PACKAGES = ("onnxruntime", "numpy", "simplejpeg", "pillow", "torch", "transformers", "opencv-python-headless")


def describe() -> str:
    """Processor, cores, load before, versions, day."""
    load = f"load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name)))
    special = int8_instructions() or "no VNNI"
    return (
        f"{core_count()} cores, {_processor()} ({platform.machine()}, {special}), {load}, Python "
        f"{platform.python_version()}, {versions}; {dt.date.today():%-d %B %Y}"
    )


def replace_section(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the page's marks ``<!-- NAME -->`` and ``<!-- end of NAME -->``.

    Raises:
        ValueError: the page has no such marks.
    """
    content = page.read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no section {name!r}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )
