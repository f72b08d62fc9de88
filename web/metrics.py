"""``/metrics`` for Prometheus: the requests of this front end, and what the ledger and the broker tell.

It needs a key of scope ``metrics``, or an open loopback. Routes are labelled as the code writes them, never as asked.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client import generate_latest as as_text
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mien import __version__
from mien.errors import MienError
from mien.ledger_metrics import LedgerFigures, read_figures
from mien.logs import ACCESS
from mien.queue import CLASSIFY_QUEUES, CONTROL_QUEUE, PREDICT_QUEUES, waiting
from web.request_id import request_id
from web.services import Services

access = logging.getLogger(ACCESS)

KEPT_S = 2.0
"""Several who ask at once are answered from one reading of the ledger."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def install(app: Flask, parts: Services) -> None:
    """Count the requests of ``app`` and serve its ``/metrics``."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(LedgerCollector(parts))
    requests = Counter("mien_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry)
    seconds = Histogram(
        "mien_http_request_seconds",
        "Time to the first byte of an answer.",
        ["route"],
        buckets=BUCKETS,
        registry=registry,
    )
    page = Blueprint("metrics", __name__)

    @page.get("/metrics")
    def metrics() -> Response:
        return Response(as_text(registry), content_type=CONTENT_TYPE_LATEST)

    @app.before_request
    def _begin() -> None:
        g.begun = time.perf_counter()

    @app.after_request
    def _count(answer: Response) -> Response:
        route = request.url_rule.rule if request.url_rule is not None else "none"
        method = request.method if request.method in METHODS else "other"
        requests.labels(method, route, f"{answer.status_code // 100}xx").inc()
        took = time.perf_counter() - g.get("begun", time.perf_counter())
        if "wait" not in request.args:  # a long poll waits because it was asked to
            seconds.labels(route).observe(took)
        access.info(
            "%s %s %d", method, route, answer.status_code,
            extra={
                "method": method,
                "route": route,
                "status": answer.status_code,
                "seconds": round(took, 4),
                "request_id": request_id(),
                "job": _job(),
            },
        )  # fmt: skip
        return answer

    app.register_blueprint(page)


def _job() -> str | None:
    """The job in the address, where it looks like one: what anyone may write there is no matter for the log."""
    found = (request.view_args or {}).get("job_id", "")
    return found if re.fullmatch(r"[0-9a-f]{16,32}", found) else None


class LedgerCollector(Collector):
    """What the ledger and the broker say whenever somebody asks."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self._read_at = -KEPT_S
        self._figures: LedgerFigures | None = None
        self._doorbells: dict[str, int] = {}

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Called at registration: nothing is read for it."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called for each answer."""
        with self._lock:
            if time.monotonic() - self._read_at >= KEPT_S:
                self._read()
            figures, doorbells = self._figures, dict(self._doorbells)
        yield _labelled("mien_build", "The version that runs: always 1.", ("version",), {(__version__,): 1})
        yield GaugeMetricFamily("mien_ledger_up", "Whether the database answers.", value=int(figures is not None))
        yield GaugeMetricFamily("mien_broker_up", "Whether the broker answers.", value=int(bool(doorbells)))
        yield _labelled(
            "mien_doorbells", "Doorbells that wait in the broker.", ("queue",), {(q,): n for q, n in doorbells.items()}
        )
        if figures is not None:
            yield from _families(figures)

    def _read(self) -> None:
        self._read_at = time.monotonic()
        try:
            self._figures = read_figures(self._parts.db)
        except MienError:
            self._figures = None
        self._doorbells = {}
        for queue in (CONTROL_QUEUE, *CLASSIFY_QUEUES.values(), *PREDICT_QUEUES.values()):
            length = waiting(self._parts.doorbell.celery(), queue)
            if length is None:
                self._doorbells = {}
                return
            self._doorbells[queue] = length


def _families(figures: LedgerFigures) -> Iterator[GaugeMetricFamily]:
    yield _labelled("mien_jobs", "Jobs by status.", ("status",), {(s,): n for s, n in figures.jobs.items()})
    yield _labelled(
        "mien_ledger_images",
        "Images of all jobs that are kept.",
        ("outcome",),
        {(o,): n for o, n in figures.images.items()},
    )
    yield _labelled(
        "mien_queue_chunks", "Chunks that wait (due) or are in work (leased).", ("state",),
        {(s,): n for s, n in figures.chunks.items()},
    )  # fmt: skip
    yield _labelled(
        "mien_queue_images", "Images of those chunks.", ("state",), {(s,): n for s, n in figures.chunk_images.items()}
    )
    yield GaugeMetricFamily(
        "mien_queue_age_seconds",
        "The longest that a job with work to be taken has waited for a worker.",
        value=figures.queue_age_s,
    )
    yield _labelled("mien_workers", "Live workers.", ("device", "state"), figures.workers)
    yield _labelled(
        "mien_workers_images_per_second", "What live workers measured.", ("device",),
        {(d,): n for d, n in figures.images_per_s.items()},
    )  # fmt: skip
    yield _labelled(
        "mien_webhook_deliveries", "Deliveries that wait, are held or were given up.", ("state",),
        {(s,): n for s, n in figures.deliveries.items()},
    )  # fmt: skip
    yield GaugeMetricFamily(
        "mien_webhook_oldest_pending_seconds", "Age of the oldest delivery that waits.", value=figures.oldest_delivery_s
    )
    yield GaugeMetricFamily("mien_webhooks_disabled", "Webhooks that are disabled.", value=figures.webhooks_disabled)


def _labelled(name: str, description: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, description, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
