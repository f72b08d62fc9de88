"""Every metric is in the table of docs/operate.md, with who tells it; and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.codes import sources
from tests.support.documents import named, rows, section
from tests.support.machine import ROOT

COUNTERS = ("Counter", "CounterMetricFamily")
OTHERS = ("Gauge", "Histogram", "Summary", "Info", "GaugeMetricFamily", "HistogramMetricFamily", "_labelled")
TELLS = {"web/metrics.py": "web", "worker/collector.py": "worker"}
CONTROL = {"mien_expired_leases_total", "mien_sweep_seconds", "mien_webhook_attempts_total"}
"""Those of the registry of ``mien.metrics`` that control alone counts."""


def written() -> dict[str, str]:
    """Each metric's name as Prometheus reads it, and who tells it, out of the calls that make them."""
    found = {}
    for path in sources():
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "prometheus_client" in text else ():
            match node:
                case ast.Call(func=ast.Name(id=kind), args=[ast.Constant(value=str() as name), *_]):
                    if kind in COUNTERS + OTHERS:
                        full = f"{name}_total" if kind in COUNTERS else name
                        found[full] = _who(path, full)
    return found


def _who(path: Path, name: str) -> str:
    return "control" if name in CONTROL else TELLS.get(path.relative_to(ROOT).as_posix(), "worker")


def test_every_metric_is_in_the_table_and_no_other() -> None:
    table = {
        name: row[1]
        for row in rows(section("docs/operate.md", "## 2. Watch"))
        if named(row[0])[0].startswith("mien_")
        for name in (*named(row[0]), *re.findall(r"`(mien_\w+)`", row[2]))
    }
    assert table == written()
