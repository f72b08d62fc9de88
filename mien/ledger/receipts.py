"""Receipts: what a deletion has deleted, counted in the very transactions that delete."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from mien.ledger.submit import new_public_id
from mien.schema import receipts

COUNTED = ("jobs", "images", "faces", "corrections", "uploads")


def open_receipt(connection: sa.Connection, owner: str, kind: str, target: Mapping[str, Any], now: dt.datetime) -> str:
    """Write a receipt for a deletion that is still to be done; gives its public id."""
    public_id = new_public_id()
    connection.execute(
        receipts.insert().values(
            public_id=public_id,
            owner=owner,
            kind=kind,
            target=_text(target),
            counts=dict.fromkeys(COUNTED, 0),
            requested_at=now,
            recorded=target.get("reason") == "retention",  # a job's own clock goes on in a restored database, too
        )
    )
    return public_id


def job_receipt(connection: sa.Connection, owner: str, job: str, now: dt.datetime, *, reason: str = "request") -> str:
    """The open receipt for the deletion of this job, made if there is none; gives its public id."""
    found = connection.execute(sa.select(receipts.c.public_id).where(_of_job(job))).scalars().first()
    return found or open_receipt(connection, owner, "job", {"job": job, "reason": reason}, now)


def count_for_job(connection: sa.Connection, job: str, counts: Mapping[str, int]) -> None:
    """Add to the open receipt for the deletion of this job, if there is one."""
    receipt = connection.execute(sa.select(receipts.c.id).where(_of_job(job))).scalars().first()
    if receipt is not None:
        add_counts(connection, receipt, counts)


def finish_for_job(connection: sa.Connection, job: str, now: dt.datetime) -> None:
    """The job is gone: its receipt says since when."""
    connection.execute(receipts.update().where(_of_job(job)).values(finished_at=now))


def add_counts(connection: sa.Connection, receipt_id: int, counts: Mapping[str, int]) -> None:
    """Add to a receipt. It comes after the job in the order of locks."""
    so_far = connection.execute(
        sa.select(receipts.c.counts).where(receipts.c.id == receipt_id).with_for_update()
    ).scalar_one()
    total = {name: so_far.get(name, 0) + counts.get(name, 0) for name in COUNTED}
    connection.execute(receipts.update().where(receipts.c.id == receipt_id).values(counts=total))


def finish_receipt(connection: sa.Connection, receipt_id: int, now: dt.datetime) -> None:
    """Nothing is left of what was to be deleted."""
    connection.execute(
        receipts.update().where(receipts.c.id == receipt_id, receipts.c.finished_at.is_(None)).values(finished_at=now)
    )


def _of_job(job: str) -> sa.ColumnElement[bool]:
    wanted = [_text({"job": job, "reason": reason}) for reason in ("request", "retention")]
    return sa.and_(receipts.c.finished_at.is_(None), receipts.c.kind == "job", receipts.c.target.in_(wanted))


def _text(target: Mapping[str, Any]) -> str:
    return json.dumps(target, sort_keys=True)
