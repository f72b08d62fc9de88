"""Every metric is in the table of docs/operate.md, with who tells it and its labels; and no other."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from tests.support.codes import sources
from tests.support.documents import named, rows, section
from tests.support.machine import ROOT

COUNTERS = ("Counter", "CounterMetricFamily")
OTHERS = ("Gauge", "Histogram", "Summary", "Info", "GaugeMetricFamily", "HistogramMetricFamily", "_labelled")
TELLS = {"web/metrics.py": "web", "worker/collector.py": "worker"}
CONTROL = {"mien_expired_leases_total", "mien_sweep_seconds", "mien_webhook_attempts_total"}
"""Those of the registry of ``mien.metrics`` that control alone counts."""


class Metric(NamedTuple):
    """Who tells it, and the labels that it is told by."""

    told_by: str
    labels: frozenset[str]


def written() -> dict[str, Metric]:
    """Each metric by its name as Prometheus reads it, out of the calls that make them."""
    found = {}
    for path in sources():
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "prometheus_client" in text else ():
            match node:
                case ast.Call(func=ast.Name(id=kind), args=[ast.Constant(value=str() as name), _, *more]):
                    if kind in COUNTERS + OTHERS:
                        full = f"{name}_total" if kind in COUNTERS else name
                        given = [*more[:1], *(one.value for one in node.keywords if one.arg == "labels")]
                        labels = {str(one) for value in given for one in ast.literal_eval(value)}
                        found[full] = Metric(_who(path, full), frozenset(labels))
    return found


def _who(path: Path, name: str) -> str:
    return "control" if name in CONTROL else TELLS.get(path.relative_to(ROOT).as_posix(), "worker")


def table() -> dict[str, list[str]]:
    """The rows of the table by the metrics in them."""
    found = [row for row in rows(section("docs/operate.md", "## 2. Watch")) if named(row[0])[0].startswith("mien_")]
    return {
        name: row
        for row in found
        for name in (*named(row[0]), *(other for other in named(row[2]) if other.startswith("mien_")))
    }


def test_every_metric_is_in_the_table_and_no_other() -> None:
    assert {name: row[1] for name, row in table().items()} == {name: one.told_by for name, one in written().items()}


def test_every_label_stands_beside_its_metric() -> None:
    rows_of = table()
    missing = {name: one.labels - set(named(" ".join(rows_of[name]))) for name, one in written().items()}
    assert {name: labels for name, labels in missing.items() if labels} == {}
