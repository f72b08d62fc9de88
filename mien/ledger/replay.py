"""Receipts and the erasure log: which it does not hold yet, and opening anew those that a backup took away."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.erased_names import paths_named
from mien.erasure_log import Erasure, name_hash
from mien.ledger.receipts import COUNTED
from mien.schema import jobs, receipts

PER_TRANSACTION = 200


def unrecorded(db: Database) -> list[sa.Row[Any]]:
    """Receipts that are not in the erasure log yet, oldest first."""
    with db.read() as connection:
        return list(
            connection.execute(
                sa.select(receipts).where(receipts.c.recorded.is_(False)).order_by(receipts.c.id).limit(PER_TRANSACTION)
            )
        )


def as_erasure(connection: sa.Connection, receipt: sa.Row[Any]) -> Erasure:
    """The receipt as it stands in the erasure log: names of images as hashes of their paths."""
    target = json.loads(receipt.target)
    files: list[str] = []
    if receipt.kind == "images":
        job_id = connection.execute(sa.select(jobs.c.id).where(jobs.c.public_id == target["job"])).scalar_one_or_none()
        # a hash too many does no harm: it stands for no image
        paths = {name.encode("utf-8", "surrogateescape") for name in target.get("files", ())}
        paths |= set() if job_id is None else set(paths_named(connection, job_id, sorted(target.get("files", ()))))
        files = [name_hash(receipt.public_id, path) for path in sorted(paths)]
    return Erasure(
        receipt=receipt.public_id,
        at=receipt.requested_at,
        owner=receipt.owner,
        kind=receipt.kind,
        job=target.get("job"),
        files=tuple(files),
        sha256=target.get("sha256"),
    )


def mark_recorded(db: Database, receipt_ids: Collection[int]) -> None:
    """These receipts are in the erasure log."""
    with db.write() as connection:
        connection.execute(receipts.update().where(receipts.c.id.in_(receipt_ids)).values(recorded=True))


def forget_names(db: Database, receipt_ids: Collection[int]) -> None:
    """Take the names of images out of those receipts that are done and recorded: they are to be forgotten, too."""
    done = sa.and_(
        receipts.c.id.in_(receipt_ids),
        receipts.c.kind == "images",
        receipts.c.finished_at.is_not(None),
        receipts.c.recorded.is_(True),
    )
    with db.write() as connection:
        for row in connection.execute(sa.select(receipts.c.id, receipts.c.target).where(done)).all():
            job = json.dumps({"job": json.loads(row.target)["job"]})
            connection.execute(receipts.update().where(receipts.c.id == row.id).values(target=job))


def reopen(db: Database, erasures: Sequence[Erasure]) -> int:
    """Open a receipt, under its own id, for each erasure that this database does not know; gives how many.

    Such a database is older than the erasure: it came out of a backup. What is to be deleted is marked in the same
    transaction, so that nothing of a job can be read from here on; control does the rest.
    """
    opened = 0
    for start in range(0, len(erasures), PER_TRANSACTION):
        some = {erasure.receipt: erasure for erasure in erasures[start : start + PER_TRANSACTION]}
        with db.write() as connection:
            known = connection.execute(sa.select(receipts.c.public_id).where(receipts.c.public_id.in_(some))).scalars()
            for public_id in known.all():
                del some[public_id]
            now = db.now(connection)
            for erasure in some.values():
                is_there = erasure.job is None or _hold_job(connection, erasure, now)
                connection.execute(
                    receipts.insert().values(
                        public_id=erasure.receipt,
                        owner=erasure.owner,
                        kind=erasure.kind,
                        target=_target(erasure),
                        counts=dict.fromkeys(COUNTED, 0),
                        requested_at=erasure.at,
                        finished_at=None if is_there else now,
                        recorded=True,
                    )
                )
        opened += len(some)
    return opened


def _hold_job(connection: sa.Connection, erasure: Erasure, now: Any) -> bool:
    """Whether the erasure's job is there; one that is to be deleted as a whole is on its way out from here on."""
    mine = sa.and_(jobs.c.owner == erasure.owner, jobs.c.public_id == erasure.job)
    if erasure.kind == "job":
        connection.execute(
            jobs.update()
            .where(mine, jobs.c.status != "deleting")
            .values(status="deleting", deleting_at=now, request=None, version=jobs.c.version + 1)
        )
    return connection.execute(sa.select(jobs.c.id).where(mine)).first() is not None


def _target(erasure: Erasure) -> str:
    match erasure.kind:
        case "job":
            return json.dumps({"job": erasure.job, "reason": "request"}, sort_keys=True)
        case "images":
            return json.dumps({"hashes": list(erasure.files), "job": erasure.job}, sort_keys=True)
        case "sha256":
            return json.dumps({"sha256": erasure.sha256}, sort_keys=True)
