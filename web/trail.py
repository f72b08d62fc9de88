"""How entries reach the audit log: at once, or soon and once an hour."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque

from mien.audit import Act, write_audit
from mien.database import Database
from mien.errors import MienError

log = logging.getLogger(__name__)

ONCE_EVERY_S = 3600.0
REMEMBERED = 20_000
"""Callers and jobs whose last hour is known; beyond that an entry may come twice."""
AGAIN_S = 1.0
WAITING = 10_000
"""Entries that wait while the database is away; beyond that the oldest are lost, which is logged."""

Told = tuple[str, int | None, str, str | None, str | None]


class AuditTrail:
    """Writes entries down: at once, or soon and once an hour."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._told: OrderedDict[Told, float] = OrderedDict()
        self._waiting: deque[Act] = deque(maxlen=WAITING)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False

    def now(self, act: Act) -> None:
        """Write it down before the request is answered; where the database fails it, as soon as it can."""
        try:
            write_audit(self._db, [act])
        except MienError as error:
            log.warning("An entry of the audit log has to wait: %s", error.detail)
            self._later(act)

    def once_an_hour(self, act: Act) -> None:
        """Write it down soon, unless the same was written within the hour."""
        what: Told = (act.owner, act.key_id, act.action, act.job, act.detail)
        with self._changed:
            last = self._told.get(what)
            if last is not None and time.monotonic() - last < ONCE_EVERY_S:
                return
            self._told[what] = time.monotonic()
            self._told.move_to_end(what)
            while len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
        self._later(act)

    def wait_until_written(self, timeout_s: float) -> bool:
        """Whether nothing waits any more within ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def _later(self, act: Act) -> None:
        with self._changed:
            if len(self._waiting) == WAITING:
                log.error("An entry of the audit log is lost: the database has been away for too long.")
            self._waiting.append(act)
            if self._thread is None or not self._thread.is_alive():
                # started late: an application object made before a fork has no thread after it
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                acts = list(self._waiting)
                self._waiting.clear()
                self._busy = True
            try:
                write_audit(self._db, acts)
            except Exception as error:
                log.warning("Entries of the audit log have to wait: %s", error)
                with self._changed:
                    self._waiting.extendleft(reversed(acts))
                time.sleep(AGAIN_S)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
