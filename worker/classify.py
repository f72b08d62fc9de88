"""From the ledger through the engines and back: the life of a chunk in a worker's hands."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from celery import Celery

from mien import metrics
from mien.database import Database
from mien.errors import LeaseLostError, ModelError, UnavailableError
from mien.faults import fault_point
from mien.ledger.cache import look_up, may_have
from mien.ledger.commit import FaceOutcome, ImageOutcome, commit_chunk
from mien.ledger.lease import ChunkLease, LeasedImage, Taker, hand_back, renew_chunk, take_chunk
from mien.ledger.work import fail_job, set_notice
from mien.logs import about
from mien.models import ModelStore
from mien.objects import StoreAwayError, bucket_of, is_objects, object_store
from mien.places import away_notice, place_trouble
from mien.queue import CONTROL_QUEUE, PURGE, ring
from mien.settings import Settings
from mien.sources import folder_identity, is_source
from mien.stage_times import ENGINE_TIME_FIELDS, Clock, add_lap, sum_times
from worker.known import find_known
from worker.messages import EngineSpec, ImageResult, ImageTask
from worker.objects import ObjectChunk
from worker.pace import Pace
from worker.supervisor import Aborted, EnginePool, EngineStartError

log = logging.getLogger(__name__)

PAUSE_AFTER_TROUBLE_S = 5.0
TRY_AGAIN_S = 0.5
MAY_BE_AWAY = ("source_away", "missing", "outside_root", "unreadable", "not_a_file")
"""How images end whose folder is taken away under an engine's hands."""


@dataclass
class Classifying:
    """A worker's classification: how many chunks at once, with which engines, for which jobs."""

    db: Database
    settings: Settings
    app: Celery
    name: str
    stop: threading.Event
    pool: EnginePool
    store: ModelStore
    device: str
    precisions: tuple[str, ...]
    _held: dict[int, tuple[ChunkLease, threading.Event]] = field(default_factory=dict)
    _away: dict[int, float] = field(default_factory=dict)  # job -> when to look at its source again
    _loaded: deque[str] = field(default_factory=lambda: deque(maxlen=2))
    _flushed: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Job -> what the flush of its last commit took: it is known after the commit, and counted with the next."""
    _again: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _resting: threading.Event = field(default_factory=threading.Event)
    _down: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._slots = threading.Semaphore(self.settings.chunks_in_flight)
        self._pace = Pace(self.settings.chunk_s, first=self.pool.images_in_hand)

    def start(self) -> None:
        """Start the engines."""
        self.pool.start()

    def close(self) -> None:
        """End the engines."""
        self.pool.stop(timeout=5)

    def take_until_none(self) -> None:
        """Take and classify chunks until none is due, this worker stops, or enough threads do it already."""
        self._again.set()
        while self._again.is_set() and not self._takes_nothing():
            if not self._slots.acquire(blocking=False):
                return  # whoever holds the slots looks again before it leaves: the flag is set
            try:
                self._again.clear()
                while not self._takes_nothing():
                    clock = Clock()
                    lease = take_chunk(self.db, self._taker(), self.settings.lease_s)
                    if lease is None:
                        break
                    with about(job=lease.public_id, chunk=lease.chunk_id):
                        self._work(lease, clock.lap())
            finally:
                self._slots.release()

    def renew(self) -> None:
        """Renew the leases in hand; whatever lost its lease or its job is abandoned at once."""
        for lease, abort in list(self._held.values()):
            if not renew_chunk(self.db, lease, self.settings.lease_s):
                abort.set()

    def rest(self, *, put_down: bool) -> None:
        """Take no more chunks; ``put_down``: hand those in hand back, uncharged, instead of finishing them."""
        self._resting.set()
        if put_down:
            self._down.set()
            self.abandon()

    def go_on(self) -> None:
        """Take chunks again."""
        self._down.clear()
        self._resting.clear()

    @property
    def chunks_held(self) -> int:
        """Chunks in hand."""
        return len(self._held)

    def _takes_nothing(self) -> bool:
        return self.stop.is_set() or self._resting.is_set()

    def abandon(self) -> None:
        """This worker stops: hand every chunk back at once."""
        for _, abort in list(self._held.values()):
            abort.set()

    def loaded_models(self) -> list[str]:
        """Revisions that the engines have used lately."""
        return list(self._loaded)

    def images_per_s(self) -> float | None:
        """Images per second, as measured while there was work."""
        rate = self._pace.images_per_s()
        return None if rate is None else round(rate, 2)

    # one chunk ----------------------------------------------------------------------------------------------------

    def _taker(self) -> Taker:
        now = time.monotonic()
        with self._lock:
            self._away = {job: until for job, until in self._away.items() if until > now}
            away = tuple(self._away)
        wanted = self._pace.wanted if self.settings.chunk_s else None
        return Taker(self.name, self.precisions, self.store.revisions(), self.loaded_models(), away, wanted)

    def _work(self, lease: ChunkLease, taking: tuple[float, float]) -> None:
        """Classify and commit a chunk; ``taking`` is what it took to lease it (seconds worked, waited)."""
        spent: dict[str, float] = {}
        add_lap(spent, "write", taking)
        abort = threading.Event()
        self._held[lease.chunk_id] = (lease, abort)
        fault_point("after_lease")
        begun = time.monotonic()
        if self.stop.is_set() or self._down.is_set():  # that came before this chunk was known
            abort.set()
        try:
            outcomes = self._timed_outcomes(lease, abort, spent)
            if outcomes is None:
                self._give_up(lease)
            else:
                self._commit(lease, outcomes, spent)
                metrics.chunk_seconds.observe(time.monotonic() - begun)
        except Aborted:
            self._give_up(lease)
        except LeaseLostError as error:
            log.warning("%s Its results are dropped.", error)
            metrics.chunks.labels("lost").inc()
            metrics.lease_losses.inc()
        except ModelError as error:
            fail_job(self.db, lease.job_id, error.code, error.detail)
            self._give_up(lease)
        except EngineStartError as error:
            log.error("%s", error)
            self._pause(lease, "engines_cannot_start", f"The engines of worker {self.name} cannot start: {error}")
        except UnavailableError as error:
            log.warning("%s", error)
            self._hand_back_once_possible(lease)
        finally:
            self._held.pop(lease.chunk_id, None)

    def _timed_outcomes(
        self, lease: ChunkLease, abort: threading.Event, spent: dict[str, float]
    ) -> list[ImageOutcome] | None:
        """As :meth:`_outcomes`; what it took decides how large later chunks are."""
        begun = self._pace.begin()
        outcomes = None
        try:
            outcomes = self._outcomes(lease, abort, spent)
        finally:
            if outcomes is None or lease.suspect:
                self._pace.end(begun)
            else:
                self._pace.end(begun, lease.kind, len(outcomes))
        return outcomes

    def _outcomes(
        self, lease: ChunkLease, abort: threading.Event, spent: dict[str, float]
    ) -> list[ImageOutcome] | None:
        """The outcome of each image of the chunk; None when the source is not there. Adds to the seconds ``spent``."""
        if is_objects(lease.source_path):
            return self._outcomes_of_objects(lease, abort, spent)
        identity = self._source_identity(lease)
        if identity is None:
            return None
        spec = self._spec(lease)
        clock = Clock()
        known = find_known(self.db, lease, self.settings.max_file_bytes)
        add_lap(spent, "read", (clock.lap()[0], 0.0))  # the rest of it are the hashing threads' times
        add_lap(spent, "read", known.hashing)
        tasks = [
            ImageTask(key=image.id, root=lease.source_path, path=image.file, identity=identity)
            for image in known.rest(lease)
        ]
        results = self.pool.classify(spec, tasks, abort=abort, alone=lease.suspect)
        ends = {result.error_code for result in results}
        if ends.intersection(MAY_BE_AWAY) and (self._source_identity(lease) is None or "source_away" in ends):
            return None
        self._note_loaded(lease.model_revision)
        classified = [_as_outcome(result) for result in results]
        return [*known.outcomes.values(), *classified, *known.copied(classified)]

    def _spec(self, lease: ChunkLease) -> EngineSpec:
        model = self.store.get(lease.model_revision)
        return EngineSpec(
            model_folder=str(model.folder),
            model_revision=lease.model_revision,
            device=self.device,
            precision=lease.precision,
            faces=lease.faces_mode,
            detect_size=lease.detect_size,
            min_face_score=lease.min_face_score,
            min_face=lease.min_face,
            max_pixels=self.settings.max_pixels,
            max_file_bytes=self.settings.max_file_bytes,
        )

    def _source_identity(self, lease: ChunkLease) -> str | None:
        """The folder's identity if it is the one that the job named; else the job says so and rests for a while."""
        identity = folder_identity(lease.source_path)
        if is_source(identity, lease.source_identity):
            return identity
        trouble = place_trouble(self.settings, lease.source_path, lease.source_identity)
        self._pause(lease, "source_away", trouble or "", give_back=False)
        return None

    def _outcomes_of_objects(
        self, lease: ChunkLease, abort: threading.Event, spent: dict[str, float]
    ) -> list[ImageOutcome] | None:
        """As :meth:`_outcomes`, of object storage."""
        if trouble := place_trouble(self.settings, lease.source_path, lease.source_identity, ask=False):
            self._pause(lease, "source_away", trouble, give_back=False)
            return None
        spec, bucket, limit = self._spec(lease), bucket_of(lease.source_path), self.settings.max_file_bytes

        def classify(images: Sequence[tuple[LeasedImage, bytes]], stop: threading.Event) -> list[ImageOutcome]:
            tasks = [ImageTask(key=image.id, root=b"", path=image.path, data=data) for image, data in images]
            return [_as_outcome(r) for r in self.pool.classify(spec, tasks, abort=stop, alone=lease.suspect)]

        try:
            store = object_store(self.settings)
            chunk = ObjectChunk(
                images=lease.images,
                read=lambda image: store.read(bucket, image.file, etag=image.etag, limit=limit),
                look_up=partial(look_up, self.db, lease) if may_have(self.db, lease) else None,
                classify=classify,
                reads=self.settings.s3_reads,
                abort=abort,
            )
            outcomes = chunk.outcomes()
            if any(outcome.error_code == "missing" for outcome in outcomes):
                store.check(bucket)  # as for a folder: the place is looked at again before an image is missing
        except StoreAwayError as away:
            self._pause(lease, "source_away", away_notice(lease.source_path, away), give_back=False)
            return None
        add_lap(spent, "read", (0.0, chunk.starved_s))
        self._note_loaded(lease.model_revision)
        return outcomes

    def _pause(self, lease: ChunkLease, code: str, notice: str, give_back: bool = True) -> None:
        """Say on the job what holds it back, and leave it alone for a while."""
        with self._lock:
            self._away[lease.job_id] = time.monotonic() + PAUSE_AFTER_TROUBLE_S
        set_notice(self.db, lease.job_id, code, notice)
        if give_back:
            hand_back(self.db, lease)

    def _hand_back_once_possible(self, lease: ChunkLease) -> None:
        """The database is away: wait for it as long as this worker lives, so that no loss is charged to the chunk."""
        while not self.stop.wait(TRY_AGAIN_S):
            try:
                hand_back(self.db, lease)
            except UnavailableError:
                continue
            return

    def _give_up(self, lease: ChunkLease) -> None:
        """Hand the chunk back uncharged; if the job was cancelled meanwhile, purge ends its images."""
        metrics.chunks.labels("handed_back").inc()
        hand_back(self.db, lease)
        if not self.stop.is_set():
            ring(self.app, PURGE, CONTROL_QUEUE)

    def _commit(self, lease: ChunkLease, outcomes: list[ImageOutcome], spent: dict[str, float]) -> None:
        """Commit, waiting for a database that is away as long as this worker lives: the token guards the result."""
        pause = 0.5
        with self._lock:
            add_lap(spent, "write", self._flushed.pop(lease.job_id, (0.0, 0.0)))
        clock = Clock()
        while True:
            try:
                fault_point("before_commit")
                with metrics.commit_seconds.time():
                    commit_chunk(self.db, lease, outcomes, spent=spent, clock=clock)
                fault_point("after_commit")
            except UnavailableError as error:
                if self.stop.wait(pause):
                    raise
                log.warning("%s Trying the commit again.", error)
                pause = min(pause * 2, 5.0)
            else:
                with self._lock:
                    self._flushed = {lease.job_id: clock.lap()}
                self._count(lease, outcomes, spent)
                return

    @staticmethod
    def _count(lease: ChunkLease, outcomes: Sequence[ImageOutcome], spent: dict[str, float]) -> None:
        metrics.chunks.labels("committed").inc()
        numbers = Counter(outcome.outcome for outcome in outcomes)
        log.info("committed %d images: %s", len(outcomes), ", ".join(f"{n} {name}" for name, n in numbers.items()))
        for outcome in outcomes:
            metrics.images.labels(outcome.outcome).inc()
            if outcome.error_code is not None:
                metrics.failures.labels(metrics.code_label(outcome.error_code)).inc()
        metrics.faces.inc(sum(len(outcome.faces) for outcome in outcomes))
        metrics.cache_hits.inc(sum(outcome.cached for outcome in outcomes))
        times = sum_times(outcomes)
        metrics.note_stages({name: seconds + spent.get(name, 0.0) for name, seconds in times.items()})

    def _note_loaded(self, revision: str) -> None:
        with self._lock:
            if revision in self._loaded:
                self._loaded.remove(revision)
            self._loaded.append(revision)


def _as_outcome(result: ImageResult) -> ImageOutcome:
    return ImageOutcome(
        image_id=result.key,
        outcome=result.outcome,
        error_code=result.error_code,
        error=result.error,
        width=result.width,
        height=result.height,
        file_bytes=result.bytes,
        format=result.format,
        sha256=result.sha256,
        faces=tuple(
            FaceOutcome(face.x, face.y, face.width, face.height, face.score, face.probabilities)
            for face in result.faces
        ),
        **{name: getattr(result, name) for name in ENGINE_TIME_FIELDS},
    )
