"""Single images that somebody waits for: out of the broker, before all others through the engines, and back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis
from celery import Celery

from mien import metrics
from mien.errors import MienError, ModelError, UnavailableError
from mien.models import ModelStore
from mien.predict import Answer, Face, ImageRequest, Taken, Trouble, give_answer, pass_on, take_image
from mien.settings import Settings
from mien.stage_times import ENGINE_STAGES
from worker.messages import EngineSpec, ImageResult, ImageTask
from worker.supervisor import Aborted, EnginePool, EngineStartError

log = logging.getLogger(__name__)

PASS_ON_AFTER_S = 0.02
"""Long enough for another worker to be the next to ask for work."""


@dataclass(frozen=True)
class Predicting:
    """A worker's answers to single images; ``broker`` gives the client for the broker as it stands now."""

    settings: Settings
    app: Celery
    pool: EnginePool
    store: ModelStore
    device: str
    broker: Callable[[], redis.Redis]

    def answer(self, ticket: str, asked: ImageRequest) -> None:
        """Take the image of ``ticket``, classify it and answer; nothing is left if nobody waits any more."""
        try:
            if asked.model_revision not in self.store.revisions():
                self._pass_on(ticket, asked)
                return
            taken = take_image(self.broker(), ticket)
            if taken is None:
                return
            until = time.monotonic() + taken.left_s
            answer = self._classify(taken, asked)
            if answer is not None:
                metrics.predictions.labels("trouble" if answer.trouble is not None else answer.outcome).inc()
                give_answer(self.broker(), ticket, answer, until - time.monotonic())
        except redis.RedisError as error:
            log.warning("The broker does not answer (%s); a single image goes without its answer.", error)

    def _pass_on(self, ticket: str, asked: ImageRequest) -> None:
        """Workers of one device class may have different models; the front end knows that one has this."""
        time.sleep(PASS_ON_AFTER_S)
        try:
            pass_on(self.app, self.broker(), ticket, device=self.device, asked=asked)
        except UnavailableError as error:
            log.warning("%s", error)

    def _classify(self, taken: Taken, asked: ImageRequest) -> Answer | None:
        abort = threading.Event()
        clock = threading.Timer(taken.left_s, abort.set)
        clock.daemon = True
        clock.start()
        try:
            (result,) = self.pool.classify(
                self._spec(asked), [ImageTask(0, b"", b"", taken.data)], abort=abort, interactive=True
            )
        except Aborted:
            if abort.is_set():
                return None  # its sender has given up by now
            return _trouble("worker", "no_worker", "The worker that had the image stops; try again.")
        except ModelError as error:
            return _trouble("model", error.code, error.detail)
        except (EngineStartError, MienError) as error:
            log.error("%s", error)
            return _trouble("worker", "engines_cannot_start", f"The worker's engines cannot start: {error}")
        finally:
            clock.cancel()
        return _as_answer(result)

    def _spec(self, asked: ImageRequest) -> EngineSpec:
        return EngineSpec(
            model_folder=str(self.store.get(asked.model_revision).folder),
            model_revision=asked.model_revision,
            device=self.device,
            precision=asked.precision,
            faces=asked.faces,
            detect_size=asked.detect_size,
            min_face_score=asked.min_face_score,
            min_face=asked.min_face,
            max_pixels=self.settings.max_pixels,
            max_file_bytes=self.settings.max_file_bytes,
        )


def _trouble(kind: str, code: str, detail: str) -> Answer:
    return Answer(trouble=Trouble.model_validate({"kind": kind, "code": code, "detail": detail}))


def _as_answer(result: ImageResult) -> Answer:
    return Answer(
        outcome=result.outcome,
        error_code=result.error_code,
        error=result.error,
        width=result.width,
        height=result.height,
        bytes=result.bytes,
        format=result.format,
        sha256=None if result.sha256 is None else result.sha256.hex(),
        faces=[
            Face(x=f.x, y=f.y, width=f.width, height=f.height, score=f.score, probabilities=f.probabilities)
            for f in result.faces
        ],
        stage_seconds={
            stage: getattr(result, f"{stage}_s") + getattr(result, f"{stage}_wait_s") for stage in ENGINE_STAGES
        },
    )
