"""A whole embedded Mien for the length of a measurement, started by the command a user would type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mien.client import Client

START_S = 60
MIEN = (sys.executable, "-c", "from cli.main import main; main()")


@contextmanager
def embedded_system(data_dir: Path, roots: Sequence[Path], **settings: object) -> Iterator[Client]:
    """``mien up ROOT...`` with its own data folder and a free port; gives a client, stops everything at the end.

    ``settings`` are MIEN_* variables by their lower-case names.
    """
    environment = {**os.environ, "MIEN_DATA_DIR": str(data_dir), "MIEN_PORT": "0"}
    environment |= {f"MIEN_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [*MIEN, "up", *(str(root) for root in roots)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        with Client(_url(process, data_dir)) as client:
            while not client.workers():
                time.sleep(0.2)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=60)


def _url(process: subprocess.Popen[bytes], data_dir: Path) -> str:
    running = data_dir / "run" / "system.json"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if running.exists():
            return str(json.loads(running.read_text())["url"])
        time.sleep(0.1)
    process.terminate()
    said = process.stderr.read().decode() if process.stderr else ""
    raise RuntimeError(f"Mien did not start: {said}")
