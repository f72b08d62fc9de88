"""Looks at the ledger all the while: in every snapshot the counters equal the rows, and what has ended stays ended."""

from __future__ import annotations

import threading
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.errors import MienError
from mien.states import FINAL_STATUSES, OUTCOMES

EVERY_S = 0.05
_SUMS = ", ".join(f"sum(CASE WHEN outcome = '{outcome}' THEN 1 ELSE 0 END) AS n_{outcome}" for outcome in OUTCOMES)
_COUNTED = ", ".join(f"coalesce(i.n_{outcome}, 0) AS n_{outcome}" for outcome in OUTCOMES)
# one statement: one snapshot, whatever the isolation. Raw, so that it shares nothing with what it judges.
SNAPSHOT = sa.text(
    f"""
    SELECT j.*, coalesce(i.n, 0) AS n, {_COUNTED},
           coalesce(i.n_faces, 0) AS n_faces, (SELECT count(*) FROM faces f WHERE f.job_id = j.id) AS face_rows
    FROM jobs j LEFT JOIN (
        SELECT job_id, count(*) AS n, sum(faces) AS n_faces, {_SUMS} FROM images WHERE job_id IN :ids GROUP BY job_id
    ) i ON i.job_id = j.id
    WHERE j.id IN :ids
    """  # noqa: S608 - names of ours
).bindparams(sa.bindparam("ids", expanding=True))
OPEN = sa.text("SELECT id FROM jobs WHERE status NOT IN :final").bindparams(
    sa.bindparam("final", expanding=True, value=list(FINAL_STATUSES))
)


class Watcher:
    """A thread that takes snapshots until it is stopped."""

    def __init__(self, db: Database) -> None:
        self.snapshots = 0
        self.defects: list[str] = []
        self._db = db
        # job -> images that have ended, all, whether they may fall. By its public name: SQLite gives the number of a
        # deleted job to the next
        self._seen: dict[str, tuple[int, int, bool]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more."""
        self._stop.set()
        self._thread.join()

    def take_defects(self) -> list[str]:
        """What was wrong since the last time."""
        found, self.defects = self.defects, []
        return found

    def _watch(self) -> None:
        followed: set[int] = set()
        while not self._stop.wait(EVERY_S):
            try:
                followed = self._look(followed)
            except (MienError, sa.exc.DBAPIError):
                continue  # the database is away: that is one of the promises

    def _look(self, followed: set[int]) -> set[int]:
        with self._db.read() as connection:
            now_open = set(connection.execute(OPEN).scalars())
        if not (ids := now_open | followed):
            return now_open
        with self._db.read() as connection:  # a snapshot of its own
            rows = connection.execute(SNAPSHOT, {"ids": list(ids)}).all()
        for row in rows:
            self._judge(row._mapping)
        self.snapshots += 1
        return now_open

    def _judge(self, job: Any) -> None:
        name = f"job {job['public_id']} ({job['status']})"
        counted = {outcome: job[f"n_{outcome}"] for outcome in OUTCOMES}
        counters = {outcome: job[outcome] for outcome in OUTCOMES}
        if counted != counters or job["total"] != job["n"] or not job["faces"] == job["face_rows"] == job["n_faces"]:
            rows = f"{counted}, {job['n']} images, {job['face_rows']} faces"
            self.defects.append(f"{name}: counters {counters}, {job['total']}, {job['faces']}; rows {rows}")
        ended = job["total"] - job["pending"]
        may_fall = job["status"] == "deleting" or job["request"] == "retry"
        before, total, could_fall = self._seen.get(job["public_id"], (0, 0, False))
        erased = max(total - job["total"], 0)
        if before - ended > erased and not may_fall and not could_fall:
            self.defects.append(f"{name}: {before} images had ended, and now {ended}; {erased} were erased")
        self._seen[job["public_id"]] = (ended, job["total"], may_fall)
