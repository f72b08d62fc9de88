"""``mien status`` says where the time goes, and ``classify`` what int8 would change."""

from __future__ import annotations

from typing import Any

import pytest

from cli.classify import int8_hint
from cli.jobs import _show
from mien.errors import UnavailableError
from mien.wire import JobStatus
from mien.wire_system import ModelCard, Worker
from web.examples import EXAMPLES


def job(**changes: Any) -> JobStatus:
    return JobStatus.model_validate(EXAMPLES["JobStatus"] | changes)


def test_status_shows_the_stages_and_what_holds_back(capsys: pytest.CaptureFixture[str]) -> None:
    _show(job())
    said = capsys.readouterr().out
    assert "detect 31.2 + 0.6" in said
    assert "write 0.5 + 0.1" in said
    assert "slowest" in said
    assert "--precision int8" in said
    nothing = dict.fromkeys(("read", "decode", "detect", "classify", "write"), 0.0)
    _show(job(stage_seconds=nothing, stage_waits=nothing, bottleneck=None))
    said = capsys.readouterr().out
    assert "ms an image" not in said
    assert "slowest" not in said


class Client:
    """Answers as a Mien with one worker."""

    def __init__(
        self, *precisions: str, device: str = "cpu", cost: str | None = "costs 0.1 points of accuracy"
    ) -> None:
        listed = EXAMPLES["WorkerList"]["items"][0]
        self._worker = Worker.model_validate(listed | {"precisions": list(precisions), "device": device})
        self._card = ModelCard.model_validate(EXAMPLES["ModelCard"] | {"int8_cost": cost})

    def workers(self) -> list[Worker]:
        return [self._worker]

    def model(self, name: str) -> ModelCard:
        return self._card


def hint(client: Any, **changes: Any) -> str | None:
    return int8_hint(client, job(**changes))


def test_int8_is_proposed_where_it_would_gain() -> None:
    said = hint(Client("fp32", "int8"))
    assert said is not None
    assert "about 30% less time" in said  # 4.87 of 10.14 s, in a 2.6th of the time
    assert "costs 0.1 points of accuracy" in said


def test_int8_is_not_proposed_elsewhere() -> None:
    assert hint(Client("fp32")) is None  # no VNNI
    assert hint(Client("fp32", "bf16", device="cuda")) is None
    assert hint(Client("fp32", "int8", cost=None)) is None  # the model has no export
    options = EXAMPLES["JobStatus"]["options"]
    assert hint(Client("fp32", "int8"), options=options | {"precision": "int8"}) is None
    detecting = {"read": 0.1, "decode": 1.0, "detect": 9.0, "classify": 1.0, "write": 0.1}
    assert hint(Client("fp32", "int8"), stage_seconds=detecting) is None

    class Gone(Client):
        def workers(self) -> list[Worker]:
            raise UnavailableError("nothing runs")

    assert hint(Gone("fp32", "int8")) is None
