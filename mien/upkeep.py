"""What a control process does for data protection at each sweep: erasures kept and carried out again, old audit entries
dropped, and on SQLite the bytes of what was deleted taken out of the files."""

from __future__ import annotations

import datetime as dt
import logging
import time
from dataclasses import dataclass, field

import sqlalchemy as sa

from mien.audit import expire_audit
from mien.database import Database
from mien.erasure import apply_again, record_erasures
from mien.erasure_log import ErasureLogError
from mien.schema import receipts
from mien.settings import Settings

log = logging.getLogger(__name__)

SCRUB_EVERY_S = 600.0
"""Deletions without a receipt (uploads whose time has passed) leave the write-ahead log within this time."""


@dataclass
class Upkeep:
    """What one process knows of it."""

    _begun: bool = False
    _scrubbed_at: float = field(default=-SCRUB_EVERY_S)
    _last_done: dt.datetime | None = None

    def sweep(self, db: Database, settings: Settings) -> None:
        """All of it. The first time: what an older database brings back is deleted anew, before anything else."""
        if not self._begun:
            try:
                apply_again(db, settings)
                self._begun = True
            except ErasureLogError as error:
                log.error("%s", error)  # nothing else has to wait for it; it is tried again with every sweep
        record_erasures(db, settings)
        expire_audit(db, settings.audit_keep_s)
        self.scrub(db)

    def scrub(self, db: Database) -> bool:
        """Empty SQLite's write-ahead log if something was deleted since; the database file itself holds zeros in its
        place (``secure_delete``). Gives whether nothing is left to do; while somebody reads it is left to the next
        time."""
        if not db.is_sqlite:
            return True
        with db.read() as connection:
            done = connection.execute(sa.select(sa.func.max(receipts.c.finished_at))).scalar_one()
        if done == self._last_done and time.monotonic() - self._scrubbed_at < SCRUB_EVERY_S:
            return True
        if not db.empty_wal():
            return False
        self._last_done, self._scrubbed_at = done, time.monotonic()
        return True
