"""One Celery process: what it holds (ledger, engines), its background threads, how it begins and how it ends."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import redis
from celery import Celery

from mien import __version__, metrics
from mien.control import Control
from mien.database import Database
from mien.deliveries import Deliverer
from mien.errors import MienError
from mien.heartbeat import BEAT_EVERY_S, Wanted, beat, leave
from mien.logs import name_process
from mien.models import ModelStore
from mien.predict import connect
from mien.queue import CLASSIFY, CLASSIFY_QUEUES, CONTROL_QUEUE, EXPAND, PREDICT_QUEUES, PURGE, broker_url, ring
from mien.resources import resource
from mien.settings import Settings, load_settings
from worker.classify import Classifying
from worker.collector import WorkerCollector
from worker.devices import choose_device, precisions_of
from worker.hardware import device_name
from worker.pools import make_pool
from worker.predict import Predicting

log = logging.getLogger(__name__)

WEBHOOKS_EVERY_S = 2.0


class Process:
    """State shared by the tasks of one Celery process; everything is made on first use, after its start."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.stop = threading.Event()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._threads: list[threading.Thread] = []
        self._controls = False
        self._consumer: Any = None
        self._wanted: Wanted = "active"
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

    def begin(self, name: str, controls: bool, consumer: Any = None) -> None:
        """The process takes messages from here on: start its clocks, and ring for work that already waits.

        ``consumer`` is Celery's, whose queues are left while the worker is to take nothing.
        """
        self._consumer = consumer
        self._tell_metrics(controls)
        self.name = f"{name}.{os.getpid()}"  # several on one host may bear the same Celery name
        self._controls = controls
        name_process("control" if controls else "worker")
        log.info("%s begins", self.name)
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
            self._ring_for_me()

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

    def _tell_metrics(self, controls: bool) -> None:
        port = self.settings.metrics_port
        if not port:
            return
        if not controls:
            WorkerCollector(lambda: self.classifying).register()
        metrics.serve(self.settings.metrics_host, port + 1 if controls else port)

    def _ring_for_me(self) -> None:
        for _ in range(self.settings.chunks_in_flight):
            ring(self.app, CLASSIFY, CLASSIFY_QUEUES[self.classifying.device])

    def _beat(self) -> None:
        """Say what this worker does, and do what its operator wants."""
        wanted = self._say()
        if wanted != self._wanted:
            log.info("this worker is to be %s", wanted)
            self._wanted = wanted
            work = self.classifying
            if wanted == "active":
                work.go_on()
                self._listen(True)
                self._ring_for_me()
            else:
                self._listen(False)
                work.rest(put_down=wanted == "paused")
            self._say()

    def _state(self) -> str:
        if self._wanted == "drained":
            return "draining" if self.classifying.chunks_held else "drained"
        return self._wanted

    def _listen(self, on: bool) -> None:
        """Take messages from this worker's queues, or leave them to others; in the consumer's own thread."""
        if self._consumer is None:
            return
        device = self.classifying.device
        change = self._consumer.add_task_queue if on else self._consumer.cancel_task_queue
        for queue in (CLASSIFY_QUEUES[device], PREDICT_QUEUES[device]):
            self._consumer.call_soon(change, queue)

    def _say(self) -> Wanted:
        work = self.classifying
        return beat(
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
            state=self._state(),
            loaded=work.loaded_models(),
            device_name=device_name(work.device),
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
