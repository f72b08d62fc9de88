"""One image, classified at once: what the front end and a worker say to each other, and nobody keeps.

The image waits in the broker's memory under a random key, for as long as its sender waits and no longer; the worker
takes it away in the step that reads it. The answer goes back through a list of one, which the front end empties. The
message in between says only how the image is to be read. No row and no file is written.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from celery import Celery
from pydantic import BaseModel
from redis.backoff import NoBackoff
from redis.retry import Retry

from mien.errors import DeadlineError, ModelError, UnavailableError, UnprocessableError
from mien.heartbeat import WorkerInfo
from mien.int8 import MISSING
from mien.queue import PREDICT, PREDICT_QUEUES
from mien.submission import Asked

PREFIX = "mien:predict:"
SOCKET_TIMEOUT_S = 5.0
"""How long the broker may take for what it can do at once."""


class ImageRequest(Asked):
    """How the image is to be read, with which model."""

    model_revision: str


class Face(BaseModel):
    """One face as an engine gives it; see :class:`mien.ledger.commit.FaceOutcome`."""

    x: float
    y: float
    width: float
    height: float
    score: float | None
    probabilities: tuple[float, ...]


class Trouble(BaseModel):
    """Why there is no answer: the model cannot be used (``model``), or the worker cannot work now (``worker``)."""

    kind: Literal["model", "worker"]
    code: str
    detail: str


class Answer(BaseModel):
    """What a worker answers: an image's outcome, or ``trouble``."""

    trouble: Trouble | None = None
    outcome: Literal["ok", "no_face", "failed"] = "failed"
    error_code: str | None = None
    error: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    format: str | None = None
    sha256: str | None = None
    faces: list[Face] = []
    stage_seconds: dict[str, float] = {}


@dataclass(frozen=True)
class Taken:
    """An image out of the broker, and how many seconds its sender still waits."""

    data: bytes
    left_s: float


def connect(url: str, wait_s: float = 0) -> redis.Redis:
    """A client for the broker at ``url`` (as Celery writes it), safe to share between threads.

    ``wait_s`` is how long a blocking read may take.
    """
    options: dict[str, Any] = {
        "socket_timeout": SOCKET_TIMEOUT_S + wait_s,
        "socket_connect_timeout": 1.0,
        "retry": Retry(NoBackoff(), 1),  # a pooled connection may have died with an earlier broker
    }
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        number = parse_qs(parts.query).get("virtual_host", ["0"])[0].strip("/") or "0"
        options |= {"unix_socket_path": unquote(parts.path), "db": int(number)}
        return redis.Redis(username=parts.username, password=parts.password, **options)
    return redis.Redis.from_url(url, **options)


def choose_device(workers: Iterable[WorkerInfo], asked: ImageRequest) -> str:
    """The device class to ask, the fastest that gives the precision and has the model.

    Raises:
        UnavailableError: ``no_worker``, ``no_worker_for_model``: none is running that could answer.
    """
    alive = list(workers)
    able = [worker for worker in alive if asked.precision in worker.precisions]
    if not able:
        raise UnavailableError(
            f"No worker is running that gives {asked.precision}"
            f"{f': {MISSING}' if asked.precision == 'int8' and alive else '; try again when one has started'}.",
            code="no_worker",
        )
    having = {worker.device for worker in able if asked.model_revision in worker.models}
    for device in ("cuda", "cpu"):
        if device in having:
            return device
    raise UnavailableError(
        f"No running worker that gives {asked.precision} has this model (revision {asked.model_revision[:12]}); "
        "install it where they run with `mien models add`.",
        code="no_worker_for_model",
    )


def predict(
    app: Celery, broker: redis.Redis, data: bytes, *, device: str, asked: ImageRequest, timeout_s: float
) -> Answer:
    """Have a worker classify ``data``; gives its answer, whose outcome is ``ok`` or ``no_face``.

    Raises:
        DeadlineError: ``predict_timeout``, no answer came in time.
        UnavailableError: ``no_broker``; or the worker cannot work now.
        ModelError: the model cannot be used.
        UnprocessableError: the image cannot be read; ``code`` is one of those of failed images.
    """
    ticket = secrets.token_hex(16)
    deadline = time.monotonic() + timeout_s
    try:
        broker.set(_image_key(ticket), data, px=max(round(timeout_s * 1000), 1))
        _send(app, ticket, device=device, asked=asked)
        found = broker.blpop([_answer_key(ticket)], timeout=max(deadline - time.monotonic(), 0.01))
    except redis.RedisError as error:
        raise _no_broker(error) from None
    finally:
        with suppress(redis.RedisError):
            broker.delete(_image_key(ticket), _answer_key(ticket))
    if found is None:
        raise DeadlineError(
            f"No worker answered within {timeout_s:g} s (MIEN_PREDICT_TIMEOUT_S); try again, or submit a job.",
            code="predict_timeout",
        )
    answer = Answer.model_validate_json(found[1])
    _raise_trouble(answer)
    return answer


def take_image(broker: redis.Redis, ticket: str) -> Taken | None:
    """Take the image of ``ticket`` out of the broker; None when its sender has given up."""
    with broker.pipeline(transaction=True) as steps:
        steps.pttl(_image_key(ticket))
        steps.get(_image_key(ticket))
        steps.delete(_image_key(ticket))
        left_ms, data, _ = steps.execute()
    return None if data is None else Taken(data, max(left_ms, 1) / 1000)


def pass_on(app: Celery, broker: redis.Redis, ticket: str, *, device: str, asked: ImageRequest) -> None:
    """Leave the image to another worker of this device class; nothing happens when its sender has given up."""
    if broker.exists(_image_key(ticket)):
        _send(app, ticket, device=device, asked=asked)


def give_answer(broker: redis.Redis, ticket: str, answer: Answer, left_s: float) -> None:
    """Send the answer back, unless its sender has given up; it is gone from the broker when the sender is."""
    if left_s <= 0:
        return
    with broker.pipeline(transaction=True) as steps:
        steps.rpush(_answer_key(ticket), answer.model_dump_json())
        steps.pexpire(_answer_key(ticket), max(round(left_s * 1000), 1))
        steps.execute()


def _send(app: Celery, ticket: str, *, device: str, asked: ImageRequest) -> None:
    try:
        app.send_task(
            PREDICT,
            kwargs={"ticket": ticket, "asked": asked.model_dump()},
            queue=PREDICT_QUEUES[device],
            # no expiry: the image itself expires by one clock, the broker's
            ignore_result=True,
            retry=False,
        )
    except Exception as error:  # kombu lets several kinds through
        raise _no_broker(error) from None


def _no_broker(error: Exception) -> UnavailableError:
    return UnavailableError(f"The broker does not answer ({error}). Try again in a moment.", code="no_broker")


def _raise_trouble(answer: Answer) -> None:
    if answer.trouble is not None:
        kind = ModelError if answer.trouble.kind == "model" else UnavailableError
        raise kind(answer.trouble.detail, code=answer.trouble.code)
    if answer.outcome == "failed":
        raise UnprocessableError(answer.error or "", code=answer.error_code, field="image")


def _image_key(ticket: str) -> str:
    return f"{PREFIX}{ticket}"


def _answer_key(ticket: str) -> str:
    return f"{PREFIX}{ticket}:answer"
