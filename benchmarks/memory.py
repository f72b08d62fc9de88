"""Memory of web, worker, control and engines while a large job of small images runs: does anything grow?

``python -m benchmarks.memory --photos FOLDER --images 100000``
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.mixed import portraits
from benchmarks.system import embedded_system
from cli.embedded.leftovers import MARK

SMALL = 112
PARTS = ("web", "worker", "control", "engines")


def part_of(process: psutil.Process, data_dir: Path) -> str | None:
    """Which part of this data folder's Mien a process belongs to; None: it is not of it.

    The environment says so; titles do not: with ``setproctitle`` installed Celery and gunicorn choose their own.
    """
    environment = process.environ()
    if environment.get("MIEN_DATA_DIR") != str(data_dir):
        return None
    if "worker.engine" in process.cmdline():
        return "engines"
    return environment.get(MARK, "").partition("@")[0] or "other"


def make_small(photos: Path, target: Path, count: int) -> None:
    """``count`` small JPEGs, no two with the same bytes (so that nothing comes out of the cache)."""
    rng = random.Random(3)
    sources = [image.resize((SMALL, SMALL)) for image in portraits(photos)]
    encoded = []
    for source in sources:
        buffer = io.BytesIO()
        source.save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    for number in range(count):
        folder = target / f"{number // 1000:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        # bytes after the end of the image change its hash and nothing else
        (folder / f"{number:07d}.jpg").write_bytes(rng.choice(encoded) + number.to_bytes(8, "big"))


def memory_by_part(data_dir: Path) -> dict[str, float]:
    """PSS in MiB (RSS where there is no PSS), summed over the processes of each part of this data folder's Mien."""
    sums = dict.fromkeys(PARTS, 0.0)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            part = part_of(process, data_dir)
            if part in sums:
                facts = process.memory_full_info()
                sums[part] += getattr(facts, "pss", facts.rss) / 2**20
    return sums


class EngineMemory:
    """Watches the engines of a data folder's Mien: the highest PSS of each, by process id, in bytes."""

    EVERY_S = 0.1

    def __init__(self, data_dir: Path) -> None:
        self.peaks: dict[int, int] = {}
        self.looks = 0
        self._data_dir = data_dir
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> EngineMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        engines: list[psutil.Process] = []
        while not self._over.wait(self.EVERY_S):
            if self.looks % 20 == 0:
                engines = [process for process in psutil.process_iter() if self._is_engine(process)]
            self.looks += 1
            for engine in engines:
                with contextlib.suppress(psutil.Error):
                    facts = engine.memory_full_info()
                    here = getattr(facts, "pss", facts.rss)
                    self.peaks[engine.pid] = max(self.peaks.get(engine.pid, 0), here)

    def _is_engine(self, process: psutil.Process) -> bool:
        try:
            return part_of(process, self._data_dir) == "engines"
        except psutil.Error:
            return False


def main() -> None:
    """Print one line per interval, then first and last beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--faces", choices=("detect", "whole"), default="whole")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between looks")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, data_dir = Path(scratch) / "small", Path(scratch) / "data"
        make_small(arguments.photos, folder, arguments.images)
        with embedded_system(data_dir, [folder]) as client:
            start = time.monotonic()
            job = client.submit_folder(str(folder), faces=arguments.faces, precision=arguments.precision)
            print("| seconds | images done | " + " | ".join(f"{part}, MiB" for part in PARTS) + " |")
            print("| --- " * (2 + len(PARTS)) + "|")
            while True:
                state = client.job(job.id)
                memory = memory_by_part(data_dir)
                cells = " | ".join(f"{memory[part]:.0f}" for part in PARTS)
                print(f"| {time.monotonic() - start:.0f} | {state.done:,} | {cells} |", flush=True)
                if state.is_final:
                    break
                time.sleep(arguments.every)
            seconds = time.monotonic() - start
            rate = state.done / seconds
            print(f"\n{state.status}: {state.counts.total:,} images in {seconds:.0f} s, {rate:.0f} images/s")


if __name__ == "__main__":
    main()
