"""What the ledger tells a metrics page, in one read session: jobs, the queue and its age, workers, deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from mien.database import Database
from mien.heartbeat import live_workers
from mien.schema import chunks, deliveries, jobs, webhooks
from mien.states import JOB_STATUSES, OUTCOMES

DEVICES = ("cpu", "cuda")
STATES = ("active", "paused", "draining", "drained")
CHUNK_STATES = ("due", "leased")
DELIVERY_STATES = ("pending", "held", "failed")
OTHER = "other"


@dataclass(frozen=True)
class LedgerFigures:
    """The ledger in one moment."""

    jobs: Mapping[str, int]
    """By status."""
    images: Mapping[str, int]
    """Of all jobs that are kept, by outcome."""
    chunks: Mapping[str, int]
    """Due and leased."""
    chunk_images: Mapping[str, int]
    queue_age_s: float
    """The longest time that a job has waited with work to be taken: since its last lease, or since it was submitted."""
    oldest_delivery_s: float
    workers: Mapping[tuple[str, str], int]
    """By device and state."""
    images_per_s: Mapping[str, float]
    """Measured by live workers, by device."""
    deliveries: Mapping[str, int]
    webhooks_disabled: int


def read_figures(db: Database) -> LedgerFigures:
    """Read them.

    Raises:
        UnavailableError: the database does not answer.
    """
    with db.read() as connection:
        now = db.now(connection)
        by_status = connection.execute(
            sa.select(jobs.c.status, sa.func.count(), *(sa.func.sum(jobs.c[name]) for name in OUTCOMES)).group_by(
                jobs.c.status
            )
        ).all()
        in_work = connection.execute(
            sa.select(chunks.c.state, sa.func.count(), sa.func.sum(chunks.c.images))
            .where(chunks.c.state.in_(CHUNK_STATES))
            .group_by(chunks.c.state)
        ).all()
        waits = sa.or_(
            sa.and_(jobs.c.status == "queued", jobs.c.request.is_not(None)),
            sa.and_(
                jobs.c.status.in_(("expanding", "running")),
                sa.exists().where(chunks.c.job_id == jobs.c.id, chunks.c.state == "due"),
            ),
        )
        since = connection.execute(
            sa.select(sa.func.min(sa.func.coalesce(jobs.c.last_leased_at, jobs.c.queued_at, jobs.c.created_at))).where(
                waits
            )
        ).scalar_one()
        told = connection.execute(
            sa.select(deliveries.c.state, sa.func.count(), sa.func.min(deliveries.c.created_at))
            .where(deliveries.c.state.in_(DELIVERY_STATES))
            .group_by(deliveries.c.state)
        ).all()
        disabled = connection.execute(
            sa.select(sa.func.count()).select_from(webhooks).where(webhooks.c.disabled_at.is_not(None))
        ).scalar_one()
    pending_since = next((row[2] for row in told if row[0] == "pending"), None)
    workers: dict[tuple[str, str], int] = {(device, "active"): 0 for device in DEVICES}
    rates = dict.fromkeys(DEVICES, 0.0)
    for worker in live_workers(db):
        key = (_one_of(worker.device, DEVICES), _one_of(worker.state, STATES))
        workers[key] = workers.get(key, 0) + 1
        rates[key[0]] = rates.get(key[0], 0.0) + (worker.images_per_s or 0.0)
    return LedgerFigures(
        jobs=dict.fromkeys(JOB_STATUSES, 0) | {row[0]: row[1] for row in by_status},
        images={name: sum(int(row[2 + place] or 0) for row in by_status) for place, name in enumerate(OUTCOMES)},
        chunks=dict.fromkeys(CHUNK_STATES, 0) | {row[0]: row[1] for row in in_work},
        chunk_images=dict.fromkeys(CHUNK_STATES, 0) | {row[0]: int(row[2] or 0) for row in in_work},
        queue_age_s=0.0 if since is None else max((now - since).total_seconds(), 0.0),
        oldest_delivery_s=0.0 if pending_since is None else max((now - pending_since).total_seconds(), 0.0),
        workers=workers,
        images_per_s=rates,
        deliveries=dict.fromkeys(DELIVERY_STATES, 0) | {row[0]: row[1] for row in told},
        webhooks_disabled=disabled,
    )


def _one_of(value: str, known: tuple[str, ...]) -> str:
    return value if value in known else OTHER
