"""Workers say every few seconds that they live and what they can do; the rest of Mien reads it here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from mien.database import Database
from mien.schema import workers

BEAT_EVERY_S = 5.0
SEEN_WITHIN_S = 20.0
FORGOTTEN_AFTER_S = 3600.0


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as it last described itself."""

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
) -> None:
    """Write this worker's row anew."""
    with db.write() as connection:
        now = db.now(connection)
        facts = {
            "host": host,
            "pid": pid,
            "device": device,
            "precisions": sorted(precisions),
            "models": sorted(models),
            "engines": engines,
            "state": "active",
            "images_per_s": images_per_s,
            "version": version,
            "seen_at": now,
        }
        if connection.execute(workers.update().where(workers.c.name == name).values(**facts)).rowcount == 0:
            connection.execute(workers.insert().values(name=name, started_at=now, **facts))
        connection.execute(workers.delete().where(workers.c.seen_at < now - dt.timedelta(seconds=FORGOTTEN_AFTER_S)))


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
        return [WorkerInfo(**row._mapping) for row in rows]
