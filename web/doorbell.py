"""The front end's doorbell: rung from a thread of its own, so that no request ever waits for the broker."""

from __future__ import annotations

import logging
import threading

from celery import Celery

from mien import queue
from mien.settings import Settings

log = logging.getLogger(__name__)


class Doorbell:
    """Rings once for each wish; equal wishes that wait together are one ring. A lost ring costs seconds, no image."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._wanted: dict[str, None] = {}
        self._thread: threading.Thread | None = None
        self._busy = False
        self._app: Celery | None = None
        self._app_url = ""
        self._app_lock = threading.Lock()

    def ring(self, task: str) -> None:
        """Tell control that there is work (``mien.queue.EXPAND`` or ``PURGE``); returns at once."""
        with self._changed:
            self._wanted[task] = None
            if self._thread is None or not self._thread.is_alive():
                # started late: an application object made before a fork has no thread after it
                self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def celery(self) -> Celery:
        """The Celery app for the broker as it is recorded now (an embedded one may have moved)."""
        with self._app_lock:
            url = queue.broker_url(self._settings)
            if self._app is None or url != self._app_url:
                self._app, self._app_url = queue.create_celery(url), url
            return self._app

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Whether every wish was carried out, or given up, within ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._wanted and not self._busy, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._wanted))
                wanted = list(self._wanted)
                self._wanted.clear()
                self._busy = True
            try:
                for task in wanted:
                    queue.ring(self.celery(), task, queue.CONTROL_QUEUE)
            except Exception:
                log.exception("The doorbell could not be rung; the work waits in the ledger.")
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
