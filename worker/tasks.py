"""Every task, each a few lines: the work stands in ``mien.control``, ``worker.classify`` and ``worker.predict``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.signals import celeryd_init, setup_logging, worker_ready, worker_shutdown, worker_shutting_down

from mien.errors import UnavailableError
from mien.logs import configure
from mien.predict import ImageRequest
from mien.queue import CLASSIFY, CONTROL_QUEUE, EXPAND, PREDICT, PURGE
from mien.settings import load_settings
from worker.celery import app
from worker.process import Process

log = logging.getLogger(__name__)
process = Process(app)


def _calmly(work: Callable[[], None]) -> None:
    """A ledger that is away is no error of the task: the work waits there, and the sweep rings again."""
    try:
        work()
    except UnavailableError as error:
        log.warning("%s", error)


@app.task(name=EXPAND)
def expand() -> None:
    """Expand or retry jobs until none waits for it."""
    _calmly(process.control.expand)


@app.task(name=PURGE)
def purge() -> None:
    """Cancel and delete until no job waits for it."""
    _calmly(process.control.purge)


@app.task(name=CLASSIFY)
def classify() -> None:
    """Take chunks from the ledger until none is due."""
    _calmly(process.classifying.take_until_none)


@app.task(name=PREDICT)
def predict(ticket: str, asked: dict[str, Any]) -> None:
    """Classify the one image that waits under this ticket in the broker."""
    process.predicting.answer(ticket, ImageRequest.model_validate(asked))


@celeryd_init.connect
def _log_from_the_first_line(**_: object) -> None:
    """Celery's warnings are lines like others; a log of JSON lines goes without its banner and its farewell."""
    settings = load_settings()
    configure(settings, "worker")
    if settings.log_format == "json":
        sys.__stdout__ = Path(os.devnull).open("w")  # type: ignore[misc] # noqa: SIM115 - where Celery prints them


@setup_logging.connect
def _log_as_it_is(**_: object) -> None:
    """With a receiver here, Celery leaves logging alone."""


@worker_ready.connect
def _begin(sender: Any, **_: object) -> None:
    process.begin(sender.hostname, CONTROL_QUEUE in app.amqp.queues.consume_from, sender)


@worker_shutting_down.connect
def _hand_back(**_: object) -> None:
    process.hand_back()


@worker_shutdown.connect
def _end(**_: object) -> None:
    process.end()
