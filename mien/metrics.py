"""The metrics of a worker or control process, for Prometheus: counted here, told on the port of ``MIEN_METRICS_PORT``.

Labels take values of ours alone (outcomes, codes, stages): nothing that a user writes becomes one.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from mien.stage_times import STAGES

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call] # a series per counter that nobody asks for
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

CHUNK_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 7.5, 10, 15, 30, 60, 120, 300)
COMMIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
MOST_CODES = 100
OTHER = "other"

images = Counter("mien_images", "Images that got their outcome here.", ["outcome"], registry=REGISTRY)
faces = Counter("mien_faces", "Faces found.", registry=REGISTRY)
cache_hits = Counter("mien_cache_hits", "Images whose result was copied from an earlier job.", registry=REGISTRY)
failures = Counter("mien_failures", "Images that failed, by error code.", ["code"], registry=REGISTRY)
chunks = Counter(
    "mien_chunks", "Chunks that left this worker: committed, lost, handed_back.", ["result"], registry=REGISTRY
)
chunk_seconds = Histogram(
    "mien_chunk_seconds", "From a chunk's lease to its commit.", buckets=CHUNK_BUCKETS, registry=REGISTRY
)
commit_seconds = Histogram(
    "mien_commit_seconds", "The transaction that writes a chunk's results.", buckets=COMMIT_BUCKETS, registry=REGISTRY
)
stage_seconds = Histogram(
    "mien_stage_seconds",
    "Seconds of a chunk in each stage, worked and waited, summed over what ran side by side.",
    ["stage", "kind"],
    buckets=CHUNK_BUCKETS,
    registry=REGISTRY,
)
lease_losses = Counter(
    "mien_lease_losses", "Leases that this worker lost while it worked on the chunk.", registry=REGISTRY
)
engine_restarts = Counter(
    "mien_engine_restarts",
    "Engine processes that ended and were replaced: retired (after long use), timeout, memory, ended.",
    ["reason"],
    registry=REGISTRY,
)
predictions = Counter("mien_predictions", "Single images answered, by outcome.", ["outcome"], registry=REGISTRY)

expired_leases = Counter(
    "mien_expired_leases", "Leases that ran out and were taken back: their worker was gone.", registry=REGISTRY
)
sweep_seconds = Histogram("mien_sweep_seconds", "One sweep of the ledger.", buckets=COMMIT_BUCKETS, registry=REGISTRY)
webhook_attempts = Counter(
    "mien_webhook_attempts",
    "Attempts to deliver webhooks: delivered, retried, failed, disabled.",
    ["result"],
    registry=REGISTRY,
)

_codes: set[str] = set()


def code_label(code: str) -> str:
    """An error code as a label: what is none of ours by its look, or beyond the hundredth, is ``other``."""
    if code in _codes:
        return code
    if len(_codes) >= MOST_CODES or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", code):
        return OTHER
    _codes.add(code)
    return code


def note_stages(times: Mapping[str, float]) -> None:
    """Note a chunk's times: of each stage ``<stage>_s`` worked and ``<stage>_wait_s`` waited, in seconds."""
    for stage in STAGES:
        for kind, field in (("worked", f"{stage}_s"), ("waited", f"{stage}_wait_s")):
            stage_seconds.labels(stage, kind).observe(times.get(field, 0.0))


def serve(host: str, port: int) -> None:
    """Tell the metrics of this process at ``http://host:port/metrics``, from a thread. A port in use is no reason to
    stop working: it is said in the log."""
    try:
        start_http_server(port, host, REGISTRY)
    except OSError as error:
        what = "it is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        log.error("No metrics of this process: port %d of %s (MIEN_METRICS_PORT): %s.", port, host, what)
    else:
        log.info("metrics at http://%s:%d/metrics", host, port)
