"""How long each question over a large ledger takes: one job of 900,000 images and a thousand of a hundred.

``python -m benchmarks.queries --images 1000000`` (SQLite in a temporary folder, or ``--database-url postgresql://...``).
A ledger that this has filled before is asked as it is. Rare answers are put where they are hardest to find: the failed
images and the rarest label stand at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from mien.aggregates import folders, summary, summary_over
from mien.database import Database
from mien.gallery import page_by_confidence
from mien.job_filter import JobFilter
from mien.jobs import get_job, list_jobs
from mien.ledger.submit import NewJob, submit
from mien.ledger.tallies import Counted, write_tallies
from mien.migrate import migrate
from mien.results import ResultFilter, results_across, results_page
from mien.schema import chunks, faces, images, jobs

OWNER = "local"
LABELS = ["neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt"]
CHUNK = 64
PER_FOLDER = 1000
SMALL = 100
TIMES = 7


def write_job(db: Database, count: int, number: int, rng: random.Random) -> str:
    """A finished job of ``count`` images, each with a face but for some."""
    new = NewJob(
        owner=OWNER, source_type="folder", source_path=b"/none", source_text="/none", source_identity="0:0",
        recursive=True, include=[], exclude=[], model=f"model{number % 3}", model_revision=f"{number % 3}" * 64,
        labels=LABELS, precision="fp32", faces_mode="detect", detect_size=640, min_face_score=0.7, min_face=0,
        fingerprint="0" * 64, provenance={}, request_hash="0" * 64, metadata={"study": f"s{number}"},
    )  # fmt: skip
    public_id, _ = submit(db, new)
    job = get_job(db, OWNER, public_id)
    counts = dict.fromkeys(("ok", "no_face", "failed", "faces"), 0)
    step = CHUNK * 100
    for start in range(0, count, step):
        with db.write() as connection:
            _write_block(
                connection, job.id, range(start, min(start + step, count)), count=count, counts=counts, rng=rng
            )
    with db.write() as connection:
        connection.execute(
            jobs.update().where(jobs.c.id == job.id).values(
                status="completed", request=None, total=count, commits=-(-count // CHUNK),
                expanded_at=db.now(connection), completed_at=db.now(connection), **counts,
            )
        )  # fmt: skip
    return public_id


def _write_block(
    connection: sa.Connection, job_id: int, numbers: range, *, count: int, counts: dict[str, int], rng: random.Random
) -> None:
    first_chunk = connection.execute(sa.select(sa.func.coalesce(sa.func.max(chunks.c.id), 0))).scalar_one() + 1
    first_image = connection.execute(sa.select(sa.func.coalesce(sa.func.max(images.c.id), 0))).scalar_one() + 1
    new_chunks: dict[int, dict[str, Any]] = {}
    new_images, new_faces, counted = [], [], []
    for place, number in enumerate(numbers):
        chunk = first_chunk + place // CHUNK
        position = place % CHUNK
        new_chunks[chunk] = {
            "id": chunk, "job_id": job_id, "state": "done", "images": position + 1, "commit_number": number // CHUNK + 1
        }  # fmt: skip
        path = b"%05d/IMG_%08d.jpg" % (number // PER_FOLDER, number)
        late = number > 0.999 * count
        outcome = "failed" if late and number % 2 else "no_face" if rng.random() < 0.03 else "ok"
        found = []
        if outcome == "ok":
            # seven labels share the job; the eighth stands in the last thousandth only
            label = "contempt" if late else LABELS[min(int(rng.expovariate(0.8)), 6)]
            found = [(label, round(rng.betavariate(6, 2), 6))]
        new_images.append(
            {
                "id": first_image + place, "job_id": job_id, "chunk_id": chunk, "position": position, "path": path,
                "path_text": path.decode(), "outcome": outcome, "faces": len(found), "width": 640, "height": 480,
                "sha256": rng.randbytes(32), "error_code": "corrupt" if outcome == "failed" else None,
            }
        )  # fmt: skip
        new_faces += [
            {
                "image_id": first_image + place, "number": 0, "job_id": job_id, "chunk_id": chunk, "x": 1.0, "y": 2.0,
                "width": 100.5, "height": 99.5, "score": 0.91, "emotion": label, "confidence": confidence,
                "probabilities": dict.fromkeys(LABELS, 0.125),
            }
            for label, confidence in found
        ]  # fmt: skip
        counted.append(Counted(chunk, path, outcome, found))
        counts[outcome] += 1
        counts["faces"] += len(found)
    connection.execute(chunks.insert(), list(new_chunks.values()))
    connection.execute(images.insert(), new_images)
    connection.execute(faces.insert(), new_faces)
    write_tallies(connection, job_id, LABELS, counted)


def measure(db: Database, name: str, ask: Callable[[], Any]) -> None:
    """Print the first, median and longest time of some repetitions, the processor's time of one, and how much came."""
    taken = []
    before = processor_s(db)
    for _ in range(TIMES):
        start = time.perf_counter()
        answer = ask()
        taken.append(1000 * (time.perf_counter() - start))
    cpu = 1000 * (processor_s(db) - before) / TIMES
    came = len(answer.items) if hasattr(answer, "next") else len(answer[0]) if isinstance(answer, tuple) else "-"
    print(f"| {name} | {came} | {taken[0]:.0f} | {statistics.median(taken):.0f} | {max(taken):.0f} | {cpu:.0f} |")


def processor_s(db: Database) -> float:
    """Processor time so far of this process, and of PostgreSQL's processes that serve it (they are on this machine)."""
    spent = time.process_time()
    if not db.is_sqlite:
        with db.read() as connection:
            mine = sa.text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
            pids = connection.execute(mine).scalars().all()
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                spent += times.user + times.system
    return spent


def main() -> None:
    """Fill a ledger, ask, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--database-url", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        db = Database(arguments.database_url or f"sqlite:///{Path(scratch)}/ledger.sqlite3")
        migrate(db)
        rng = random.Random(7)
        small = arguments.images // 10 // SMALL
        start = time.perf_counter()
        there = list_jobs(db, OWNER, among=JobFilter(metadata={"study": "s0"})).items
        large = there[0].public_id if there else write_job(db, arguments.images - small * SMALL, 0, rng)
        for number in range(1, 1 if there else small + 1):
            write_job(db, SMALL, number, rng)
        if not db.is_sqlite:  # what autovacuum does by itself, later
            with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for table in ("images", "faces", "chunks", "jobs", "tallies"):
                    connection.execute(sa.text(f"VACUUM ANALYZE {table}"))
        print(f"{arguments.images:,} images in {small + 1:,} jobs, {db.url.get_backend_name()}, "
              f"written in {time.perf_counter() - start:.0f} s; milliseconds\n")  # fmt: skip
        print("| question | found | first | median | longest | processor |\n| --- | --- | --- | --- | --- | --- |")
        ask_all(db, large, small)
        db.dispose()


def ask_all(db: Database, large: str, small: int) -> None:
    """Every kind of question."""
    job = get_job(db, OWNER, large)
    wanted = {
        "any": ResultFilter(),
        "a frequent label": ResultFilter(emotion="happy"),
        "a label at the very end": ResultFilter(emotion="contempt"),
        "a label that is not there": ResultFilter(emotion="bored"),
        "failed": ResultFilter(outcome="failed"),
        "cancelled (none)": ResultFilter(outcome="cancelled"),
        "confidence above 0.999": ResultFilter(min_confidence=0.999),
        "confidence 0.5 to 0.50001": ResultFilter(min_confidence=0.5, max_confidence=0.50001),
        "a label below 0.2": ResultFilter(emotion="fear", max_confidence=0.2),
        "the last folder": ResultFilter(prefix=f"{(job.counts['total'] - 1) // PER_FOLDER:05d}/"),
        "no such folder": ResultFilter(prefix="zzz/"),
        "a label in the last folder": ResultFilter(
            prefix=f"{(job.counts['total'] - 1) // PER_FOLDER:05d}/", emotion="contempt"
        ),
    }
    for name, some in wanted.items():
        measure(db, f"within a job: {name}, 100", lambda some=some: results_page(db, job, limit=100, wanted=some))
    for name in ("any", "a frequent label", "a label at the very end", "confidence above 0.999", "the last folder"):
        some = wanted[name]
        measure(db, f"the least certain: {name}, 100",
                lambda some=some: page_by_confidence(db, job, limit=100, wanted=some))  # fmt: skip
    halfway = page_by_confidence(db, job, limit=1, wanted=ResultFilter(min_confidence=0.75)).next
    measure(db, "the least certain: from 0.75 on, 100", lambda: page_by_confidence(db, job, after=halfway, limit=100))
    measure(db, "the most certain: any, 100", lambda: page_by_confidence(db, job, most_certain_first=True, limit=100))
    measure(db, "within a job: any, 1,000", lambda: results_page(db, job, limit=1000))
    for name, some in wanted.items():
        measure(db, f"across jobs: {name}, 100", lambda some=some: results_across(db, OWNER, limit=100, wanted=some))
    last = JobFilter(metadata={"study": f"s{small}"})
    rare = ResultFilter(emotion="contempt")
    measure(db, "across jobs: one by metadata, 100", lambda: results_across(db, OWNER, among=last, limit=100))
    measure(db, "across jobs: by model, a label at the very end",
            lambda: results_across(db, OWNER, among=JobFilter(model="model2"), limit=100, wanted=rare))  # fmt: skip
    measure(db, "jobs: newest, 50", lambda: list_jobs(db, OWNER))
    measure(db, "jobs: one by metadata", lambda: list_jobs(db, OWNER, among=last))
    measure(db, "jobs: by model, 50", lambda: list_jobs(db, OWNER, among=JobFilter(model="model1")))
    measure(db, "summary of the large job", lambda: summary(db, job))
    measure(db, "summary of a folder", lambda: summary(db, job, folder="00007"))
    measure(db, "the first 100 folders", lambda: folders(db, job))
    measure(db, "summary over all jobs", lambda: summary_over(db, OWNER))
    measure(db, "summary over jobs by model", lambda: summary_over(db, OWNER, JobFilter(model="model1")))


if __name__ == "__main__":
    main()
