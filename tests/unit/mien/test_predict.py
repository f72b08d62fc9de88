"""The parts of the exchange of single images that need no broker."""

from __future__ import annotations

import datetime as dt

import pytest

from mien.errors import UnavailableError
from mien.heartbeat import WorkerInfo
from mien.predict import ImageRequest, choose_device, connect

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def worker(device: str, precisions: list[str], models: list[str]) -> WorkerInfo:
    return WorkerInfo(
        name=f"{device}-worker", host="h", pid=1, device=device, precisions=precisions, models=models, engines=1,
        state="active", images_per_s=None, version="0", started_at=NOW, seen_at=NOW,
    )  # fmt: skip


def asked(precision: str, revision: str = "a") -> ImageRequest:
    return ImageRequest(
        model_revision=revision, faces="detect", precision=precision, detect_size=640, min_face_score=0.7, min_face=0
    )


CPU = worker("cpu", ["fp32", "int8"], ["a", "b"])
CUDA = worker("cuda", ["fp32", "bf16"], ["a"])


@pytest.mark.parametrize(
    ("workers", "wanted", "device"),
    [
        ([CPU], asked("fp32"), "cpu"),
        ([CPU, CUDA], asked("fp32"), "cuda"),
        ([CPU, CUDA], asked("fp32", "b"), "cpu"),
        ([CPU, CUDA], asked("int8"), "cpu"),
        ([CPU, CUDA], asked("bf16"), "cuda"),
        ([CPU, CUDA], asked("bf16", "b"), "no_worker_for_model"),
        ([CPU, CUDA], asked("fp32", "c"), "no_worker_for_model"),
        ([CPU], asked("bf16"), "no_worker"),
        ([], asked("fp32"), "no_worker"),
    ],
)
def test_the_device_that_can_answer(workers: list[WorkerInfo], wanted: ImageRequest, device: str) -> None:
    try:
        found = choose_device(workers, wanted)
    except UnavailableError as error:
        found = error.code
    assert found == device


def test_every_kind_of_broker_address() -> None:
    socket = connect("redis+socket:///tmp/with%20space/broker.sock?virtual_host=3")
    facts = socket.connection_pool.connection_kwargs
    assert (facts["path"], facts["db"]) == ("/tmp/with space/broker.sock", 3)
    plain = connect("redis://:secret@host:6380/2", wait_s=10).connection_pool.connection_kwargs
    assert (plain["host"], plain["port"], plain["db"], plain["password"]) == ("host", 6380, 2, "secret")
    assert plain["socket_timeout"] > 10
    assert connect("redis+socket:///tmp/broker.sock").connection_pool.connection_kwargs["db"] == 0
