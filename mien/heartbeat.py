"""Workers say every few seconds that they live and what they can do; the rest of Mien reads it here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from mien.database import Database
from mien.errors import NotFoundError
from mien.schema import workers

BEAT_EVERY_S = 5.0
SEEN_WITHIN_S = 20.0
FORGOTTEN_AFTER_S = 3600.0

Wanted = Literal["active", "paused", "drained"]
"""What an operator wants of a worker: to work; to put down what it holds and wait; to finish it, and take no more."""


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as it last described itself.

    ``state``: active, paused, draining or drained. ``wanted`` is its operator's word, ``loaded`` the revisions in its
    engines; both come from columns that workers of earlier versions do not write.
    """

    name: str
    host: str
    pid: int
    device: str
    precisions: list[str]
    models: list[str]
    engines: int
    state: str
    images_per_s: float | None
    version: str
    started_at: dt.datetime
    seen_at: dt.datetime
    wanted: str = "active"
    loaded: list[str] | None = None
    device_name: str | None = None

    @property
    def takes_work(self) -> bool:
        """Whether it takes chunks and single images now."""
        return self.state == "active"


def beat(
    db: Database,
    *,
    name: str,
    host: str,
    pid: int,
    device: str,
    precisions: Collection[str],
    models: Collection[str],
    engines: int,
    images_per_s: float | None,
    version: str,
    state: str = "active",
    loaded: Collection[str] = (),
    device_name: str | None = None,
) -> Wanted:
    """Write this worker's row anew; gives what its operator wants of it."""
    with db.write() as connection:
        now = db.now(connection)
        facts = {
            "host": host,
            "pid": pid,
            "device": device,
            "precisions": sorted(precisions),
            "models": sorted(models),
            "engines": engines,
            "state": state,
            "images_per_s": images_per_s,
            "version": version,
            "seen_at": now,
            "loaded": sorted(loaded),
            "device_name": device_name,
        }
        if connection.execute(workers.update().where(workers.c.name == name).values(**facts)).rowcount == 0:
            connection.execute(workers.insert().values(name=name, started_at=now, **facts))
        connection.execute(workers.delete().where(workers.c.seen_at < now - dt.timedelta(seconds=FORGOTTEN_AFTER_S)))
        wanted: Wanted = connection.execute(sa.select(workers.c.wanted).where(workers.c.name == name)).scalar_one()
    return wanted


def leave(db: Database, name: str) -> None:
    """A worker that stops takes its row along."""
    with db.write() as connection:
        connection.execute(workers.delete().where(workers.c.name == name))


def live_workers(db: Database) -> list[WorkerInfo]:
    """The workers that were seen lately."""
    with db.read() as connection:
        now = db.now(connection)
        rows = connection.execute(
            sa.select(workers)
            .where(workers.c.seen_at >= now - dt.timedelta(seconds=SEEN_WITHIN_S))
            .order_by(workers.c.name)
        )
        return [_as_info(row._mapping) for row in rows]


def working(workers: Iterable[WorkerInfo]) -> list[WorkerInfo]:
    """Those that take work."""
    return [worker for worker in workers if worker.takes_work]


def set_wanted(db: Database, name: str, wanted: Wanted) -> WorkerInfo:
    """Say what is wanted of a worker; it hears of it with its next beat.

    Raises:
        NotFoundError: ``unknown_worker``, none of this name was seen lately.
    """
    with db.write() as connection:
        since = db.now(connection) - dt.timedelta(seconds=SEEN_WITHIN_S)
        connection.execute(
            workers.update().where(workers.c.name == name, workers.c.seen_at >= since).values(wanted=wanted)
        )
        row = connection.execute(
            sa.select(workers).where(workers.c.name == name, workers.c.seen_at >= since)
        ).one_or_none()
    if row is None:
        raise NotFoundError(
            f"No worker {name!r} was seen lately; `mien workers` or GET /api/v1/workers lists them.",
            code="unknown_worker",
        )
    return _as_info(row._mapping)


def _as_info(row: sa.RowMapping) -> WorkerInfo:
    return WorkerInfo(**{name: row[name] for name in WorkerInfo.__dataclass_fields__})
