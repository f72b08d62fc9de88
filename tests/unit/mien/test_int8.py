"""int8: whether this processor gives it, and what a model's record says that it costs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mien import int8
from mien.control import held_up
from mien.heartbeat import WorkerInfo
from mien.int8 import Int8Cost, cost_sentence, int8_instructions, read_costs, saved_share, write_record
from mien.ledger.lease import Due
from mien.models import ModelStore, load_model
from mien.resources import resource
from worker.devices import precisions_of


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("sse4_2 avx2 avx512f avx512_vnni", "VNNI"),
        ("avx2 avx_vnni", "VNNI"),
        ("avx512_vnni amx_tile amx_int8", "AMX"),
        ("fp asimd asimddp", "the dot product"),
        ("sse4_2 avx2 avx512f avx512bw", None),  # Skylake: its 16-bit sums saturate
        ("fp asimd", None),
    ],
)
def test_workers_offer_int8_only_where_sums_are_exact(
    monkeypatch: pytest.MonkeyPatch, flags: str, named: str | None
) -> None:
    monkeypatch.setattr(int8, "processor_flags", lambda: frozenset(flags.split()))
    monkeypatch.setattr(int8.platform, "system", lambda: "Linux")
    assert int8_instructions() == named
    assert ("int8" in precisions_of("cpu")) is (named is not None)
    assert "int8" not in precisions_of("cuda")


def test_a_job_that_no_processor_can_serve_says_why() -> None:
    now = dt.datetime.now(dt.UTC)
    facts = {
        "name": "w", "host": "h", "pid": 1, "device": "cpu", "precisions": ["fp32"], "models": [], "engines": 1,
        "state": "active", "images_per_s": None, "version": "1", "started_at": now, "seen_at": now, "wanted": "active",
        "loaded": None, "device_name": None,
    }  # fmt: skip
    worker = WorkerInfo(**{name: facts[name] for name in WorkerInfo.__dataclass_fields__ if name in facts})
    held = held_up(Due(1, "int8", "default", "a" * 64), [worker])
    assert held is not None
    assert "VNNI" in held[1]
    assert "fp32" in held[1]


def test_the_record_is_written_read_and_kept_by_the_store(tmp_path: Path) -> None:
    costs = [Int8Cost(1620, 0.8506, 0.85, "faces of FER+"), Int8Cost(100, 0.7, 0.72, "others")]
    write_record(tmp_path, costs)
    assert read_costs(tmp_path) == costs
    assert cost_sentence(tmp_path) == (
        "costs 0.1 points of accuracy (85.1% in fp32, 85.0% in int8, 1,620 images of faces of FER+); "
        "gains 2.0 points of accuracy (70.0% in fp32, 72.0% in int8, 100 images of others)"
    )
    (tmp_path / "record.json").write_text("{")
    assert read_costs(tmp_path) == []
    assert "was not measured" in cost_sentence(tmp_path)
    shipped = resource("models/default")
    installed = ModelStore(tmp_path / "store").install(shipped)
    assert read_costs(installed.folder) == read_costs(shipped) != []
    assert installed.revision == load_model(shipped).revision


def test_the_time_saved() -> None:
    assert saved_share(0.5, gain=2.0) == 0.25
    assert saved_share(0.0) == 0
