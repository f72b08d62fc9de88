"""Who is told of a job's end: one delivery row per webhook, written in the transaction that ends the job."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Any

import sqlalchemy as sa

from mien.schema import deliveries, jobs, webhooks
from mien.states import FINAL_STATUSES

EVENTS = tuple(f"job.{status}" for status in FINAL_STATUSES)
"""What a webhook can be told of: ``job.completed``, ``job.cancelled``, ``job.failed``."""
_COUNTS = ("total", "pending", "ok", "no_face", "failed", "cancelled", "faces", "skipped", "cached")


def note_end(connection: sa.Connection, job_id: int, owner: str, status: str, now: dt.datetime) -> int:
    """Write a delivery for each of the owner's webhooks that wants to hear of this end; gives how many.

    The caller's transaction has just given the job its final status, and holds its row. The webhooks are held against
    deletion until it ends, so that no delivery refers to one that is gone.
    """
    event = f"job.{status}"
    listening = [
        row.id
        for row in connection.execute(
            sa.select(webhooks.c.id, webhooks.c.events)
            .where(webhooks.c.owner == owner, webhooks.c.disabled_at.is_(None))
            .order_by(webhooks.c.id)
            .with_for_update(read=True, key_share=True)
        )
        if event in row.events
    ]
    if not listening:
        return 0
    job = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()
    payload = _payload(event, job._mapping, now)
    connection.execute(
        deliveries.insert(),
        [
            {
                "public_id": new_message_id(),
                "webhook_id": webhook_id,
                "job_id": job_id,
                "event": event,
                "payload": payload,
                "state": "pending",
                "next_attempt_at": now,
                "created_at": now,
            }
            for webhook_id in listening
        ],
    )
    return len(listening)


def new_message_id() -> str:
    """The ``webhook-id`` of a delivery: the same for every attempt, so that a receiver can tell a repeat."""
    return f"msg_{secrets.token_hex(12)}"


def _payload(event: str, job: sa.RowMapping, now: dt.datetime) -> dict[str, Any]:
    """What a receiver is told: no path and no name of a file is part of it."""
    return {
        "type": event,
        "timestamp": _text(now),
        "data": {
            "id": job["public_id"],
            "status": job["status"],
            "counts": {name: job[name] for name in _COUNTS},
            "model": {"name": job["model"], "revision": job["model_revision"]},
            "metadata": job["metadata"],
            "error_code": job["error_code"],
            "created_at": _text(job["created_at"]),
            "ended_at": _text(now),
        },
    }


def _text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
