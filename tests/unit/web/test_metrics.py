"""What Prometheus reads: who may, that labels are ours alone, and that dashboard and alerts name what exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from mien import metrics
from mien.database import Database
from mien.heartbeat import beat
from mien.keys import create_key
from mien.ledger.sweep import take_back_expired
from tests.support.ledger import expanded_job, work_off
from tests.support.machine import ROOT
from worker.collector import WorkerCollector

OPS = ROOT / "ops"
WORDS = frozenset(("sum", "rate", "increase", "by", "on", "and", "or", "clamp_min", "max", "histogram_quantile"))
"""Words of the query language that dashboard and alerts use."""


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def series(found: Iterable[Any]) -> set[str]:
    """Every name that a query may use: counters end in _total, histograms have three."""
    names = set()
    for family in found:
        names.add(family.name if family.type != "counter" else f"{family.name}_total")
        if family.type == "histogram":
            names |= {f"{family.name}{ending}" for ending in ("_bucket", "_count", "_sum")}
    return names


class _Pool:
    size = 2

    def engines(self) -> list[Any]:
        return [SimpleNamespace(ready=True, images=3, resident_bytes=1000, pid=1)]


class _CudaWorker:
    pool = _Pool()
    device = "cuda"
    chunks_held = 1

    def images_per_s(self) -> float:
        return 7.0


@pytest.fixture
def existing(client: FlaskClient) -> dict[str, set[str]]:
    """Every metric that front end, worker and control tell, with the labels of each."""
    client.get("/metrics")  # counted, so that the counters of requests are there
    found = list(text_string_to_metric_families(client.get("/metrics").text))
    of_workers = [*metrics.REGISTRY.collect(), *WorkerCollector(_CudaWorker).collect()]  # type: ignore[arg-type]
    return {name: labels_of(family) for family in [*found, *of_workers] for name in series([family])}


DECLARED = {
    "mien_images": {"outcome"},
    "mien_failures": {"code"},
    "mien_chunks": {"result"},
    "mien_engine_restarts": {"reason"},
    "mien_predictions": {"outcome"},
    "mien_stage_seconds": {"stage", "kind"},
    "mien_webhook_attempts": {"result"},
    "mien_doorbells": {"queue"},
    "mien_gpu_memory_used_bytes": {"gpu"},
    "mien_gpu_memory_bytes": {"gpu"},
}
"""Labels of metrics that have no sample yet."""


def labels_of(family: Any) -> set[str]:
    seen = {name for sample in family.samples for name in sample.labels}
    return seen | DECLARED.get(family.name, set())


def queries() -> list[tuple[str, str]]:
    """(where, expression) of every panel and alert."""
    dashboard = json.loads((OPS / "grafana" / "mien.json").read_text())
    rules = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text())
    return [
        *((panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]),
        *((rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]),
    ]


def test_dashboard_and_alerts_name_metrics_and_labels_that_exist(existing: dict[str, set[str]]) -> None:
    found = queries()
    assert len(found) > 35
    for where, query in found:
        assert query.count("(") == query.count(")"), where
        grouped = {
            label.strip() for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query) for label in group.split(",")
        } - {""}
        matched = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
        bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on)\s*\([^)]*\)", "", query)
        names = set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - WORDS
        assert names, where
        assert names <= set(existing), (where, names - set(existing))
        known = set().union(*(existing[name] for name in names)) | {"le", "instance", "job"}
        assert grouped | matched <= known, (where, (grouped | matched) - known)


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert(existing: dict[str, set[str]]) -> None:
    text = " ".join(query for _, query in queries())
    ours = {re.sub(r"_(bucket|count|sum)$", "", name) for name in existing if name.startswith("mien_")}
    unseen = {name for name in ours if name not in text} - {"mien_build", "mien_ledger_images", "mien_queue_chunks"}
    assert unseen <= {"mien_measured_images_per_second", "mien_engine_images_in_hand"}


def test_names_follow_prometheus(existing: dict[str, set[str]]) -> None:
    for name in existing:
        assert re.fullmatch(r"(mien|process)_[a-z0-9_]+", name)
        assert not name.endswith(("_ms", "_mib", "_percent"))


def test_a_key_of_its_own_opens_it_and_nothing_else(app: Flask, client: FlaskClient, db: Database) -> None:
    assert client.get("/metrics").status_code == 200  # an open loopback
    _, secret = create_key(db, "prometheus", scope="metrics")
    _, reader = create_key(db, "reader", scope="read")
    assert client.get("/metrics").status_code == 401
    for key in (secret, reader):
        assert client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    for path in ("/api/v1/jobs", "/api/v1/workers", "/readyz", "/"):
        answer = client.get(path, headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 403, path
        assert answer.get_json()["code"] == "scope_needed"


def test_no_label_comes_from_a_user(client: FlaskClient) -> None:
    for path in ("/api/v1/jobs/secret-name", "/secret-name", "/api/v1/models/secret-name"):
        client.get(path)
    client.open("/api/v1/jobs", method="SECRETNAME")
    for _ in range(2):
        client.get("/metrics")
    text = client.get("/metrics").text
    assert "secret-name" not in text.lower()
    assert "secretname" not in text.lower()
    assert 'route="/api/v1/jobs/<job_id>"' in text
    metrics._codes.clear()
    assert metrics.code_label("Not A Code!") == "other"
    assert {metrics.code_label(f"code_{n}") for n in range(500)} == {*(f"code_{n}" for n in range(100)), "other"}
    metrics._codes.clear()


def test_the_ledger_is_told_as_it_is(client: FlaskClient, db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "photos", 10, chunk_size=4)
    work_off(db, limit=1)
    beat(
        db, name="w", host="h", pid=1, device="cpu", precisions=["fp32"], models=[], engines=1, images_per_s=40.0,
        version="0", state="draining",
    )  # fmt: skip
    with db.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET queued_at = '2026-01-01 00:00:00', last_leased_at = NULL")
    found = families(client.get("/metrics").text)

    def value(name: str, **labels: str) -> float:
        return float(next(s.value for s in found[name].samples if s.labels == labels))

    assert value("mien_ledger_up") == 1
    assert value("mien_broker_up") == 0
    assert value("mien_jobs", status="running") == 1
    assert value("mien_queue_chunks", state="due") == 2
    assert value("mien_queue_images", state="due") == 6
    assert value("mien_ledger_images", outcome="ok") == 4
    assert value("mien_workers", device="cpu", state="draining") == 1
    assert value("mien_workers_images_per_second", device="cpu") == 40
    assert value("mien_queue_age_seconds") > 3600
    assert take_back_expired(db) == 0
