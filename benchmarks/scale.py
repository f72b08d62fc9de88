"""How many images a second one ledger on PostgreSQL carries, with engines that only sleep.

``python -m benchmarks.scale --images 1000000`` (a private PostgreSQL with ``fsync`` on, in a temporary folder; or
``--database-url postgresql://...``). The ledger, its statements and its transactions are the real ones; each worker is
a process of its own with two chunks in flight. First the workers sleep as long as a GPU of ``--rate`` images a second
would take for a chunk: does the database keep up? Then they do not sleep at all: what remains is the limit of database
and workers together on this machine. In front of it all images are written down, as expansion does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from benchmarks.ledger import LABELS, new_job
from mien.database import Database
from mien.ledger.commit import FaceOutcome, ImageOutcome, commit_chunk
from mien.ledger.expand import begin_expansion, finish_expansion, write_slice
from mien.ledger.lease import ChunkLease, Taker, take_chunk
from mien.ledger.submit import submit
from mien.ledger.work import release_job, take_job
from mien.migrate import migrate
from tests.support.postgres import private_server, server_programs

IN_FLIGHT = 2
FACES = 500
RATED_S = 20
"""How long a run at the engines' pace lasts, at most."""
LOOK_EVERY_S = 0.05
SERVER = (
    "-c fsync=on -c synchronous_commit=on -c shared_buffers=1GB -c max_wal_size=8GB -c checkpoint_timeout=15min "
    "-c wal_compression=on -c max_connections=200"
)
"""Settings that an operator would choose, too: docs/scale.md."""


@dataclass
class Seen:
    """What was seen while workers ran."""

    seconds: float = 0.0
    images: int = 0
    chunks: int = 0
    database_s: float = 0.0
    workers_s: float = 0.0
    wal_bytes: int = 0
    samples: int = 0
    waits: Counter[str] = field(default_factory=Counter)


def some_faces(rng: random.Random) -> list[FaceOutcome]:
    """Faces whose numbers have their real width."""
    made = []
    for _ in range(FACES):
        shares = [rng.random() ** 4 for _ in LABELS]
        total = sum(shares)
        x, y = rng.random() * 1000, rng.random() * 1000
        made.append(FaceOutcome(x, y, 101.53, 99.47, rng.random(), tuple(share / total for share in shares)))
    return made


def outcomes(lease: ChunkLease, faces: Sequence[FaceOutcome]) -> list[ImageOutcome]:
    """One face per image and a content of its own; every 50th image without a face."""
    made = []
    for image in lease.images:
        if image.id % 50:
            one = (faces[image.id % FACES],)
            made.append(ImageOutcome(image.id, "ok", width=1600, height=1200, file_bytes=204_800, format="JPEG",
                                     sha256=os.urandom(32), faces=one))  # fmt: skip
        else:
            made.append(ImageOutcome(image.id, "no_face", width=1600, height=1200, file_bytes=204_800, format="JPEG",
                                     sha256=os.urandom(32)))  # fmt: skip
    return made


def work(url: str, name: str, rate: float, gates: tuple[Barrier, Barrier], results: Any) -> None:
    """One worker: two threads take turns at the engine, which sleeps; each commits what it classified."""
    db, (begin, end) = Database(url), gates
    faces = some_faces(random.Random(7))
    taker = Taker(name, ("fp32",))
    engine = threading.Lock()
    done: list[int] = []

    def lane() -> None:
        while lease := take_chunk(db, taker, 600):
            with engine:
                if rate:
                    time.sleep(len(lease.images) / rate)
            commit_chunk(db, lease, outcomes(lease, faces))
            done.append(len(lease.images))

    with db.read() as connection:  # connected before the clock runs
        connection.execute(sa.text("SELECT 1"))
    begin.wait()
    before = time.process_time()
    lanes = [threading.Thread(target=lane) for _ in range(IN_FLIGHT)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    results.put((sum(done), len(done), time.process_time() - before))
    end.wait()  # its connections live until the server's time was read
    db.dispose()


def write_down(db: Database, count: int, chunk_size: int) -> float:
    """A job of ``count`` images, expanded; gives the seconds that took."""
    submit(db, new_job(Path("/photos")))
    lease = take_job(db, "scale", 600, purge=False)
    assert lease is not None
    began = time.perf_counter()
    begin_expansion(db, lease)
    for first in range(0, count, 10 * chunk_size):
        numbers = range(first, min(first + 10 * chunk_size, count))
        write_slice(db, lease, [b"%05d/IMG_%08d.jpg" % (n // 1000, n) for n in numbers], 0, chunk_size)
    finish_expansion(db, lease, None)
    release_job(db, lease)
    return time.perf_counter() - began


@contextmanager
def watched(db: Database) -> Iterator[Seen]:
    """Look at the server while the block runs: its processor time, what its connections wait for, its log."""
    seen = Seen()
    stop = threading.Event()

    def look() -> None:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not stop.wait(LOOK_EVERY_S):
                rows = connection.execute(
                    sa.text(
                        "SELECT COALESCE(wait_event_type || ' ' || wait_event, 'running') FROM pg_stat_activity "
                        "WHERE state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()"
                    )
                ).scalars()
                seen.waits.update(rows)
                seen.samples += 1

    log = _log_position(db)
    before = _server_seconds(db)
    watcher = threading.Thread(target=look)
    watcher.start()
    began = time.perf_counter()
    try:
        yield seen
    finally:
        seen.seconds = time.perf_counter() - began
        after = _server_seconds(db)
        seen.database_s = sum(after[pid] - before.get(pid, 0.0) for pid in after)
        seen.wal_bytes = _log_position(db) - log
        stop.set()
        watcher.join()


def _log_position(db: Database) -> int:
    with db.read() as connection:
        return int(connection.execute(sa.text("SELECT pg_current_wal_lsn() - '0/0'")).scalar_one())


def _server_seconds(db: Database) -> dict[int, float]:
    """Processor seconds by process of the server, where it runs on this machine."""
    with db.read() as connection:
        try:
            pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
            server = psutil.Process(pid).parent()
        except psutil.Error:
            return {}
    found = {}
    for process in [server, *server.children()] if server is not None else []:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        found[process.pid] = times.user + times.system
    return found


def run(db: Database, url: str, workers: int, rate: float, count: int) -> Seen:
    """``workers`` work off the job of ``count`` images that waits."""
    context = multiprocessing.get_context("spawn")
    begin, end, results = context.Barrier(workers + 1), context.Barrier(workers + 1), context.Queue()
    processes = [
        context.Process(target=work, args=(url, f"w{n}", rate, (begin, end), results), daemon=True)
        for n in range(workers)
    ]
    for process in processes:
        process.start()
    begin.wait()
    with watched(db) as seen:
        for _ in processes:
            images, chunks, spent = results.get()
            seen.images += images
            seen.chunks += chunks
            seen.workers_s += spent
    end.wait()
    for process in processes:
        process.join()
    assert seen.images == count, f"{seen.images} of {count} images came back"
    with db.read() as connection:
        row = connection.execute(
            sa.text("SELECT status, pending, ok + no_face AS done FROM jobs ORDER BY id DESC LIMIT 1")
        ).one()
        assert (row.status, row.pending, row.done) == ("completed", 0, count), row
    return seen


def shown(workers: int, rate: float, seen: Seen) -> str:
    """A row of the table."""
    waits = sum(number for kind, number in seen.waits.items() if kind.startswith("Lock"))
    active = sum(seen.waits.values()) or 1
    first = ", ".join(f"{kind} {100 * n / active:.0f}%" for kind, n in seen.waits.most_common(4))
    offered = f"{workers * rate:,.0f}/s" if rate else "all they can"
    return (
        f"| {workers} | {offered} | {seen.images / seen.seconds:,.0f}/s | {seen.chunks / seen.seconds:.1f}/s "
        f"| {seen.database_s / seen.seconds:.2f} | {1e6 * seen.database_s / seen.images:.0f} us "
        f"| {1e6 * seen.workers_s / seen.images:.0f} us | {seen.wal_bytes / seen.images:,.0f} B "
        f"| {waits / max(seen.samples, 1):.2f} | {first} |"
    )


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000, help="over all runs")
    parser.add_argument("--chunk-size", type=int, default=512)
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--rate", type=float, default=1250, help="images/s of one engine; 16 such: about one H200")
    parser.add_argument("--limit-only", action="store_true", help="only the runs without sleeping")
    parser.add_argument("--database-url", default="")
    arguments = parser.parse_args()
    if arguments.database_url:
        measure(arguments, arguments.database_url)
        return
    programs = server_programs()
    if programs is None:
        raise SystemExit("PostgreSQL's server programs are not installed; or give --database-url")
    with private_server(programs, SERVER) as folder:
        measure(arguments, f"postgresql://postgres@/postgres?host={folder}")


def measure(arguments: argparse.Namespace, url: str) -> None:
    """Every run on one database, one after the other: it grows as it would."""
    db = Database(url)
    migrate(db)
    workers = [int(number) for number in arguments.workers.split(",")]
    rates = [0.0] if arguments.limit_only else [arguments.rate, 0.0]
    count = arguments.images // (len(rates) * len(workers))
    seconds = write_down(db, min(count, 50_000), arguments.chunk_size)
    print(f"{psutil.cpu_count()} cores; {count:,} images a run at most, chunks of {arguments.chunk_size}")
    print(f"writing down (expansion): {min(count, 50_000) / seconds:,.0f} images/s\n")
    with db.write() as connection:
        connection.execute(sa.text("UPDATE jobs SET status = 'cancelled'"))
    print("| workers | offered | carried | commits | database cores | database per image | workers per image "
          "| log per image | waiting for locks | of active connections |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for rate in rates:
        for number in workers:
            some = min(count, round(rate * number * RATED_S)) if rate else count
            write_down(db, some, arguments.chunk_size)
            print(shown(number, rate, run(db, url, number, rate, some)), flush=True)
    print(f"\n{on_disk(db)}")
    db.dispose()


def on_disk(db: Database) -> str:
    """What an image takes on the disk, its indexes included, once everything is vacuumed."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM"))
        done = connection.execute(sa.text("SELECT count(*) FROM images WHERE outcome <> 'pending'")).scalar_one()
        sizes = {
            table: connection.execute(sa.text(f"SELECT pg_total_relation_size('{table}')")).scalar_one()
            for table in ("images", "faces", "tallies", "chunks")
        }
        heaps = connection.execute(sa.text("SELECT pg_table_size('images') + pg_table_size('faces')")).scalar_one()
    each = ", ".join(f"{table} {size / done:,.0f}" for table, size in sizes.items())
    return f"On disk: {sum(sizes.values()) / done:,.0f} bytes an image ({each}; without indexes {heaps / done:,.0f})."


if __name__ == "__main__":
    main()
