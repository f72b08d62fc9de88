"""What the ledger costs: expanding a source, leasing and committing chunks, exporting, and the memory that takes.

``python -m benchmarks.ledger --images 1000000`` (SQLite in a temporary folder, or ``--database-url postgresql://...``).
The engines are left out on purpose: outcomes are made up, so that what remains is the cost of queue and database alone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from mien.aggregates import summary
from mien.control import Control
from mien.database import Database
from mien.export import csv_lines, jsonl_lines
from mien.jobs import get_job
from mien.ledger.commit import FaceOutcome, ImageOutcome, commit_chunk
from mien.ledger.lease import ChunkLease, Taker, take_chunk
from mien.ledger.submit import NewJob, submit
from mien.migrate import migrate
from mien.queue import create_celery
from mien.receipts import request_delete
from mien.results import results_page
from mien.settings import load_settings
from mien.sources import folder_identity

LABELS = ["neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt"]
PER_FOLDER = 1000


def make_source(folder: Path, count: int) -> None:
    """``count`` empty files with the names of photographs, a thousand to a folder."""
    for number in range(0, count, PER_FOLDER):
        below = folder / f"{number // PER_FOLDER:05d}"
        below.mkdir(parents=True)
        for file in range(number, min(number + PER_FOLDER, count)):
            (below / f"IMG_{file:08d}.jpg").touch()


def new_job(folder: Path) -> NewJob:
    """A job on ``folder``."""
    return NewJob(
        owner="local",
        source_type="folder",
        source_path=bytes(folder),
        source_text=str(folder),
        source_identity=folder_identity(bytes(folder)),
        recursive=True,
        include=[],
        exclude=[],
        model="none",
        model_revision="0" * 64,
        labels=LABELS,
        precision="fp32",
        faces_mode="detect",
        detect_size=640,
        min_face_score=0.7,
        min_face=0,
        fingerprint="0" * 64,
        provenance={},
        request_hash="0" * 64,
    )


def outcomes(lease: ChunkLease, rng: random.Random) -> list[ImageOutcome]:
    """One face per image with random numbers, so that rows have their real width."""
    made = []
    for image in lease.images:
        chances = tuple(rng.random() for _ in LABELS)
        box = FaceOutcome(rng.random() * 1000, rng.random() * 1000, 101.5, 99.5, 0.91, chances)
        made.append(
            ImageOutcome(image.id, "ok", width=640, height=480, file_bytes=51234, format="JPEG",
                         sha256=rng.randbytes(32), faces=(box,))
        )  # fmt: skip
    return made


def timed(name: str, count: int, work: Callable[[], object]) -> None:
    """Run ``work`` and print its time, rate and this process's memory before and at its peak."""
    process = psutil.Process()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    grown = (peak - before) / 2**20
    print(
        f"| {name} | {seconds:.2f} s | {count / seconds:,.0f}/s | {1e6 * seconds / count:.1f} us | +{grown:.0f} MiB |"
    )


def drain(lines: Iterator[bytes]) -> int:
    """Read a stream to its end; gives its bytes."""
    return sum(len(line) for line in lines)


def classify_without_engines(db: Database) -> None:
    """Lease and commit every chunk."""
    rng = random.Random(7)
    taker = Taker("benchmark", ("fp32",))
    while lease := take_chunk(db, taker, 60):
        commit_chunk(db, lease, outcomes(lease, rng))


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--chunk-size", type=int, default=64)
    parser.add_argument("--database-url", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        make_source(source, arguments.images)
        db = Database(arguments.database_url or f"sqlite:///{scratch}/ledger.sqlite3")
        migrate(db)
        settings = load_settings(chunk_size=arguments.chunk_size)
        control = Control(db, settings, create_celery("redis://127.0.0.1:1/0"), "benchmark", threading.Event())
        public_id, _ = submit(db, new_job(source))
        count = arguments.images
        print(f"{count:,} images, chunks of {arguments.chunk_size}, {db.url.get_backend_name()}\n")
        print("| step | time | rate | per image | memory |\n| --- | --- | --- | --- | --- |")
        timed("expand (walk and write rows)", count, control.expand)
        timed("lease and commit", count, lambda: classify_without_engines(db))
        job = get_job(db, "local", public_id)
        timed("CSV export", count, lambda: drain(csv_lines(db, job)))
        timed("JSON Lines export", count, lambda: drain(jsonl_lines(db, job)))
        timed("summary", count, lambda: summary(db, job))
        timed("first page of 1,000 results", 1000, lambda: results_page(db, job, limit=1000))
        request_delete(db, "local", public_id)
        timed("delete", count, control.purge)
        db.dispose()


if __name__ == "__main__":
    main()
