"""The Celery app and the doorbells: messages that only say "there is work"; the work itself stands in the ledger."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery

from mien.settings import Settings

log = logging.getLogger(__name__)

EXPAND = "mien.expand"
PURGE = "mien.purge"
CLASSIFY = "mien.classify"
PREDICT = "mien.predict"
CONTROL_QUEUE = "control"
CLASSIFY_QUEUES = {"cpu": "classify.cpu", "cuda": "classify.cuda"}
PREDICT_QUEUES = {"cpu": "predict.cpu", "cuda": "predict.cuda"}
MOST_DOORBELLS = 100
"""So many in a queue wake whoever comes; more would only pile up while nobody does. No doorbell expires: a worker
whose clock is wrong would take every one for expired."""


def create_celery(broker_url: str) -> Celery:
    """The Celery app. Sending fails fast (0.02 s instead of kombu's 6 s); receiving reconnects for ever."""
    app = Celery("mien", broker=broker_url)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,  # a lost doorbell is rung again by sweep; one that loops would be worse
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "max_retries": 0,
            "socket_timeout": 5,
            "socket_connect_timeout": 1,
            "visibility_timeout": 3600,
            "queue_order_strategy": "priority",
        },
        task_default_queue=CONTROL_QUEUE,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=True,
    )
    return app


def broker_url(settings: Settings) -> str:
    """The broker's URL: the one configured, or the embedded server's socket as recorded in the data folder."""
    if settings.broker_url:
        return settings.broker_url
    recorded = settings.data_dir / "broker.url"
    return recorded.read_text().strip() if recorded.exists() else "redis+socket:///nonexistent/mien.sock"


def ring(app: Celery, task: str, queue: str, **message: Any) -> bool:
    """Ring one doorbell, once. False when the broker does not answer: nothing is lost, ``sweep`` rings later."""
    try:
        if (waiting(app, queue) or 0) < MOST_DOORBELLS:
            app.send_task(task, kwargs=message, queue=queue, ignore_result=True, retry=False)
    except Exception as error:
        log.warning("The broker does not answer (%s); the work waits in the ledger.", error)
        return False
    return True


def waiting(app: Celery, queue: str) -> int | None:
    """How many doorbells wait in ``queue``; None when the broker does not answer."""
    try:
        with app.connection_for_write() as connection:
            channel = connection.default_channel
            return int(channel.client.llen(queue))
    except Exception:
        return None
