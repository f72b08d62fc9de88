"""One Celery process: what it holds (ledger, engines), its background threads, how it begins and how it ends."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from functools import cached_property

import redis
from celery import Celery

from mien import __version__
from mien.control import Control
from mien.database import Database
from mien.deliveries import Deliverer
from mien.errors import MienError
from mien.heartbeat import BEAT_EVERY_S, beat, leave
from mien.models import ModelStore
from mien.predict import connect
from mien.queue import CLASSIFY, CLASSIFY_QUEUES, CONTROL_QUEUE, EXPAND, PURGE, broker_url, ring
from mien.resources import resource
from mien.settings import Settings, load_settings
from worker.classify import Classifying
from worker.devices import choose_device, precisions_of
from worker.pools import make_pool
from worker.predict import Predicting

log = logging.getLogger(__name__)

WEBHOOKS_EVERY_S = 1.0


class Process:
    """State shared by the tasks of one Celery process; everything is made on first use, after its start."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.stop = threading.Event()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._threads: list[threading.Thread] = []
        self._controls = False
        self._lock = threading.Lock()
        self._classifying: Classifying | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings of this process."""
        return load_settings()

    @cached_property
    def db(self) -> Database:
        """The ledger."""
        return Database(self.settings.database, longest_pause_s=self.settings.lease_s)

    @cached_property
    def control(self) -> Control:
        """Expansion, purge and sweep."""
        return Control(self.db, self.settings, self.app, self.name, self.stop)

    @cached_property
    def deliverer(self) -> Deliverer:
        """Webhooks."""
        return Deliverer(self.db, self.settings, self.stop.is_set)

    @cached_property
    def broker(self) -> redis.Redis:
        """The broker, for single images."""
        return connect(broker_url(self.settings))

    @cached_property
    def predicting(self) -> Predicting:
        """Single images, with the same engines."""
        work = self.classifying
        return Predicting(self.settings, self.app, work.pool, work.store, work.device, lambda: self.broker)

    @property
    def classifying(self) -> Classifying:
        """Chunks from the ledger through the engines and back; made once, whichever thread asks first."""
        with self._lock:
            if self._classifying is None:
                self._classifying = self._make_classifying()
            return self._classifying

    def _make_classifying(self) -> Classifying:
        device = choose_device(self.settings.device)
        pool = make_pool(device, self.settings)
        store = ModelStore(self.settings.models, resource("models/default"))
        store.ensure_shipped()
        return Classifying(
            db=self.db,
            settings=self.settings,
            app=self.app,
            name=self.name,
            stop=self.stop,
            pool=pool,
            store=store,
            device=device,
            precisions=precisions_of(device),
        )

    def begin(self, name: str, controls: bool) -> None:
        """The process takes messages from here on: start its clocks, and ring for work that already waits."""
        self.name = f"{name}.{os.getpid()}"  # several on one host may bear the same Celery name
        self._controls = controls
        if controls:
            self._every(self.settings.sweep_interval_s, self.control.sweep, "sweep")
            self._every(self.settings.sweep_interval_s, self.control.go_on_walking, "walks")
            self._every(WEBHOOKS_EVERY_S, self.deliverer.send_due, "webhooks")
            ring(self.app, EXPAND, CONTROL_QUEUE)
            ring(self.app, PURGE, CONTROL_QUEUE)
        else:
            self.classifying.start()
            self._every(BEAT_EVERY_S, self._beat, "heartbeat")
            self._every(self.settings.lease_s / 3, self.classifying.renew, "renewal")
            for _ in range(self.settings.chunks_in_flight):
                ring(self.app, CLASSIFY, CLASSIFY_QUEUES[self.classifying.device])

    def hand_back(self) -> None:
        """The process was told to stop: take no more work, and give back what is in hand."""
        self.stop.set()
        if self._classifying is not None:
            self._classifying.abandon()

    def end(self) -> None:
        """The last task has returned: end threads and engines."""
        self.stop.set()
        if self._classifying is not None:
            self._classifying.close()
        for thread in self._threads:
            thread.join(timeout=2)
        if self._controls:
            try:
                self.control.let_go()
            except MienError as error:
                log.warning("%s", error)
        if not self._controls:
            try:
                leave(self.db, self.name)
            except MienError as error:
                log.warning("%s", error)
        self.db.dispose()

    def _beat(self) -> None:
        work = self.classifying
        beat(
            self.db,
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=work.device,
            precisions=work.precisions,
            models=work.store.revisions(),
            engines=work.pool.size,
            images_per_s=work.images_per_s(),
            version=__version__,
        )

    def _every(self, seconds: float, work: Callable[[], object], name: str) -> None:
        """Run ``work`` now and every ``seconds`` until the process stops. What fails is logged and tried again."""

        def loop() -> None:
            while True:
                try:
                    work()
                except MienError as error:
                    log.warning("%s: %s", name, error)
                except Exception:
                    log.exception("%s failed", name)
                if self.stop.wait(seconds):
                    return

        thread = threading.Thread(target=loop, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
