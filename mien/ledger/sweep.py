"""The sweep: take back the chunks whose lease ran out. Safe to run anywhere, at any time, by several at once."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass

import sqlalchemy as sa

from mien.database import Database
from mien.ledger.retry import move_to_new_chunk
from mien.schema import chunks, images

log = logging.getLogger(__name__)

LOSSES_BEFORE_SPLIT = 3
CHUNKS_PER_SWEEP = 500


@dataclass
class Patience:
    """Knows when leases ran out because everything stood still, not because a worker was lost.

    A laptop that slept, a database that was away or locked: the leases ran out with nobody to renew them, and the
    workers are about to. So when two looks lie further apart than looks and half a lease explain, leases are left alone
    for the length of one. Times are the database's.
    """

    interval_s: float
    lease_s: float
    _looked_at: dt.datetime | None = None
    _until: dt.datetime | None = None

    def is_over(self, now: dt.datetime) -> bool:
        """Whether leases may be taken back; asked at each look, inside its transaction."""
        looked_at, self._looked_at = self._looked_at, now
        if looked_at is not None and (now - looked_at).total_seconds() > self.interval_s + self.lease_s / 2:
            log.warning("no look at the leases since %s; they are left alone for %g s", looked_at, self.lease_s)
            self._until = now + dt.timedelta(seconds=self.lease_s)
        return self._until is None or now >= self._until


def take_back_expired(db: Database, patience: Patience | None = None) -> int:
    """Make chunks with an expired lease due again, each loss counted; gives how many.

    A chunk lost three times is split in two: if one image takes whole workers with it, halving finds it. Alone and lost
    again, it is a suspect, which a worker gives to a fresh engine by itself.
    """
    if ended := db.end_standing_copies():
        log.warning("%s sessions of the database stood still in the middle of a commit and were ended", ended)
    with db.write() as connection:
        now = db.now(connection)
        if patience is not None and not patience.is_over(now):
            return 0
        expired = connection.execute(
            sa.select(chunks.c.id, chunks.c.job_id, chunks.c.losses, chunks.c.lease_owner)
            .where(chunks.c.state == "leased", chunks.c.lease_expires_at < now)
            .order_by(chunks.c.id)
            .limit(CHUNKS_PER_SWEEP)
            .with_for_update(skip_locked=True, key_share=True)
        ).all()
        for chunk in expired:
            log.warning("chunk %s of job %s: the lease of %s ran out", chunk.id, chunk.job_id, chunk.lease_owner)
            losses = chunk.losses + 1
            suspect = losses >= LOSSES_BEFORE_SPLIT and not _split(connection, chunk.id, chunk.job_id)
            connection.execute(
                chunks.update()
                .where(chunks.c.id == chunk.id)
                .values(
                    state="due",
                    token=None,
                    lease_owner=None,
                    lease_expires_at=None,
                    losses=losses if suspect or losses < LOSSES_BEFORE_SPLIT else LOSSES_BEFORE_SPLIT - 1,
                    suspect=suspect,
                )
            )
    return len(expired)


def _split(connection: sa.Connection, chunk_id: int, job_id: int) -> bool:
    """Move the second half of the chunk's waiting images into a chunk of their own; False if there is only one."""
    waiting = (
        connection.execute(
            sa.select(images.c.id)
            .where(images.c.chunk_id == chunk_id, images.c.outcome == "pending")
            .order_by(images.c.position)
        )
        .scalars()
        .all()
    )
    if len(waiting) < 2:
        return False
    half = len(waiting) // 2
    # lost once more, each half is halved again
    move_to_new_chunk(connection, job_id, tuple(waiting[half:]), losses=LOSSES_BEFORE_SPLIT - 1)
    connection.execute(chunks.update().where(chunks.c.id == chunk_id).values(images=half))
    return True
