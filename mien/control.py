"""What control does for jobs: expand their sources, put failed images back, cancel, delete, and sweep."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

import sqlalchemy as sa
from celery import Celery

from mien import metrics
from mien.database import Database
from mien.erasure import Eraser, open_erasures
from mien.errors import LeaseLostError
from mien.faults import fault_point
from mien.heartbeat import WorkerInfo, live_workers, working
from mien.int8 import MISSING
from mien.ledger.expand import begin_expansion, finish_expansion, write_slice
from mien.ledger.lease import Due, due_jobs
from mien.ledger.purge import delete_job_row, delete_slice, end_pending_slice
from mien.ledger.retention import expire_results
from mien.ledger.retry import begin_retry, finish_retry, retry_slice
from mien.ledger.sweep import Patience, take_back_expired
from mien.ledger.work import (
    RUNNING_LIMIT,
    JobEndedError,
    JobLease,
    fail_job,
    has_images,
    held_by_limit,
    release_job,
    renew_job,
    set_notice,
    take_job,
    waits_for_control,
)
from mien.logs import about
from mien.model_folder import DEVICE_PRECISIONS
from mien.objects import StoreAwayError
from mien.paths import path_text
from mien.places import away_notice, images_of, place_trouble
from mien.queue import CLASSIFY, CLASSIFY_QUEUES, CONTROL_QUEUE, EXPAND, PURGE, ring, waiting
from mien.schema import jobs
from mien.settings import Settings
from mien.sources import Found, Skipped
from mien.thumbnails import remove_thumbnails, sweep_thumbnails
from mien.upkeep import Upkeep
from mien.uploads import remove_strays, remove_uploads, sweep_uploads, uploaded_paths

log = logging.getLogger(__name__)

SLICE_IMAGES = 1000
SLICE_S = 1.0
LEAST_AHEAD = 10_000
"""Images of a job that may wait for workers before its walk waits for them."""


@dataclass
class Walk:
    """A walk through a source under way, and what it came upon that makes no image."""

    lease: JobLease
    job: sa.Row[tuple[object, ...]]
    items: Iterator[Found | Skipped]
    unreadable: list[bytes] = field(default_factory=list)
    skipped: int = 0


class _Parked(Exception):  # noqa: N818 - not an error: the workers have enough to do
    """The walk is in :attr:`Control.parked` now, and maybe taken up again by another thread already."""


@dataclass(frozen=True)
class Control:
    """The tools of a control process."""

    db: Database
    settings: Settings
    app: Celery
    name: str
    stop: threading.Event
    parked: dict[int, Walk] = field(default_factory=dict)
    """Walks that wait until workers have caught up, by job; this process keeps their leases."""
    upkeep: Upkeep = field(default_factory=Upkeep)

    @cached_property
    def patience(self) -> Patience:
        """What this process has seen of the clock."""
        return Patience(self.settings.sweep_interval_s, self.settings.lease_s)

    def expand(self) -> None:
        """Expand or retry jobs until none waits for it."""
        self._each_job(self._expand_or_retry, purge=False)

    def purge(self) -> None:
        """Cancel and delete until nothing waits for it; give the pending images of failed jobs their outcome."""
        self._each_job(self._end_or_delete, purge=True)
        Eraser(self.db, self.settings, self.stop.is_set).carry_out()
        self.upkeep.scrub(self.db)

    def sweep(self) -> None:
        """Take back expired leases, ring where work is due, and say on a job what holds it back."""
        with metrics.sweep_seconds.time():
            self._sweep()

    def _sweep(self) -> None:
        self.upkeep.sweep(self.db, self.settings)
        metrics.expired_leases.inc(take_back_expired(self.db, self.patience))
        sweep_uploads(self.db, self.settings)
        sweep_thumbnails(self.db, self.settings)
        expire_results(self.db)
        most = self.settings.running_jobs
        for job_id in held_by_limit(self.db, most):
            set_notice(self.db, job_id, RUNNING_LIMIT, _limit_notice(most))
        expand, purge = waits_for_control(self.db, most)
        for wanted, task in ((expand, EXPAND), (purge or open_erasures(self.db), PURGE)):
            if wanted and not waiting(self.app, CONTROL_QUEUE):
                ring(self.app, task, CONTROL_QUEUE)
        workers = live_workers(self.db)
        due = due_jobs(self.db)
        for job in due:
            if held := held_up(job, workers):
                set_notice(self.db, job.job_id, *held)
        if due:
            ring_workers(self.app, working(workers), {job.precision for job in due}, self.settings.chunks_in_flight)

    def go_on_walking(self) -> None:
        """Keep the leases of parked walks, and take those up again whose workers have caught up by half."""
        for job_id in list(self.parked):
            pending = self._keep_parked()
            limit = self.ahead(working(live_workers(self.db)))
            if self.stop.is_set() or job_id not in pending or (limit is not None and pending[job_id] >= limit / 2):
                continue
            parked = self.parked.pop(job_id)
            self._attempt(parked.lease, partial(self._take_up, parked))

    def _keep_parked(self) -> dict[int, int]:
        """Renew the leases of all parked walks and give the images of each that wait; ended jobs are let go."""
        pending: dict[int, int] = {}
        for job_id, parked in list(self.parked.items()):
            try:
                left = renew_job(self.db, parked.lease)
            except LeaseLostError as error:
                log.warning("%s", error)
                left = None
            if left is not None:
                pending[job_id] = left
            elif self.parked.pop(job_id, None) is not None:
                release_job(self.db, parked.lease)
        return pending

    def let_go(self) -> None:
        """This process stops: whoever comes next may walk the parked sources."""
        while self.parked:
            _, walk = self.parked.popitem()
            release_job(self.db, walk.lease)

    def ahead(self, workers: Iterable[WorkerInfo]) -> int | None:
        """How many images of a job may wait for the workers that live; None without a limit."""
        if not self.settings.ahead_s:
            return None
        rate = sum(worker.images_per_s or 0 for worker in workers)
        return max(LEAST_AHEAD, round(rate * self.settings.ahead_s))

    def _each_job(self, work: Callable[[JobLease], bool], *, purge: bool) -> None:
        stuck: set[int] = set()  # what cannot go on now is left to the next sweep, or this would spin
        while not self.stop.is_set():
            lease = take_job(
                self.db, self.name, self.settings.lease_s, purge=purge, skip=stuck, most=self.settings.running_jobs
            )
            if lease is None:
                return
            if self._attempt(lease, work) is False:
                stuck.add(lease.job_id)

    def _attempt(self, lease: JobLease, work: Callable[[JobLease], bool]) -> bool | None:
        """Do ``work`` under a lease and give it back, unless its walk is parked; None where the job is ours no more."""
        keep = False
        try:
            with about(job=lease.public_id):
                return work(lease)
        except _Parked:
            keep = True
            return True
        except JobEndedError:
            log.info("job %s was ended while it was being expanded", lease.public_id)
        except LeaseLostError as error:
            log.warning("%s", error)
        finally:
            if not keep:
                release_job(self.db, lease)
        return None

    # expansion ----------------------------------------------------------------------------------------------------

    def _expand_or_retry(self, lease: JobLease) -> bool:
        if lease.request == "retry":
            expanded = begin_retry(self.db, lease)
            after: int | None = 0
            while after is not None and not self.stop.is_set():
                after = retry_slice(self.db, lease, after, self.settings.chunk_size)
                fault_point("retrying")
                self._ring(lease)
            if after is None and expanded:
                finish_retry(self.db, lease)
                return True
            if after is not None:
                return False
        return self._expand(lease)

    def _expand(self, lease: JobLease) -> bool:
        with self.db.read() as connection:
            job = connection.execute(sa.select(jobs).where(jobs.c.id == lease.job_id)).one()
        if trouble := place_trouble(self.settings, job.source_path, job.source_identity):
            set_notice(self.db, lease.job_id, "source_away", trouble)
            return False
        begin_expansion(self.db, lease)
        return self._go_on(Walk(lease, job, self._found(lease, job._mapping)))

    def _go_on(self, under_way: Walk) -> bool:
        """Walk on, to the end if the workers keep up; gives whether nothing more is to be done now."""
        lease, job = under_way.lease, under_way.job
        try:
            done = self._walk(under_way)
        except StoreAwayError as away:
            set_notice(self.db, lease.job_id, "source_away", away_notice(job.source_path, away))
            return False
        except OSError as error:
            if trouble := place_trouble(self.settings, job.source_path, job.source_identity):
                set_notice(self.db, lease.job_id, "source_away", trouble)
                return False
            reason = os.strerror(error.errno or 0)
            fail_job(
                self.db, lease.job_id, "source_unreadable", f"The folder {job.source_text} cannot be read: {reason}."
            )
            return True
        if not done:
            return False
        with self.db.read() as connection:
            empty = not has_images(connection, lease.job_id)
        if empty:
            fail_job(self.db, lease.job_id, "no_images", _no_images(job.source_text, under_way.skipped, job.recursive))
        else:
            finish_expansion(self.db, lease, _unreadable_notice(under_way.unreadable))
            log.info("the source is written down; %d other files were skipped", under_way.skipped)
            self._ring(lease)
        return True

    def _take_up(self, parked: Walk, _lease: JobLease) -> bool:
        return self._go_on(parked)

    def _walk(self, under_way: Walk) -> bool:
        """Write the walk slice by slice; gives whether it came to its end. One too far ahead of workers is parked."""
        lease = under_way.lease
        kept_at = time.monotonic()
        paths: list[bytes] = []
        listed: dict[bytes, tuple[str | None, int | None]] = {}
        skipped = 0
        since = time.monotonic()
        for item in under_way.items:
            if isinstance(item, Skipped):
                skipped += 1
                if item.reason == "unreadable_folder":
                    under_way.unreadable.append(item.path)
            else:
                paths.append(item.path)
                if item.etag is not None:
                    listed[item.path] = (item.etag, item.size)
            if len(paths) >= SLICE_IMAGES or time.monotonic() - since >= SLICE_S:
                pending = write_slice(self.db, lease, paths, skipped, self.settings.chunk_size, listed=listed)
                fault_point("expanding")
                limit = self.ahead(self._ring(lease))
                under_way.skipped += skipped
                paths, listed, skipped, since = [], {}, 0, time.monotonic()
                if self.stop.is_set():
                    return False
                if time.monotonic() - kept_at > self.settings.lease_s / 3:
                    kept_at = time.monotonic()
                    self._keep_parked()
                if limit is not None and pending >= limit:
                    self.parked[lease.job_id] = under_way
                    raise _Parked
        write_slice(self.db, lease, paths, skipped, self.settings.chunk_size, listed=listed)
        under_way.skipped += skipped
        return True

    def _found(self, lease: JobLease, facts: sa.RowMapping) -> Iterator[Found | Skipped]:
        if facts["source_type"] == "upload":
            remove_strays(self.db, self.settings, lease.job_id, lease.public_id)
            return (Found(path) for path in uploaded_paths(self.db, lease.job_id))
        return images_of(
            self.settings,
            facts["source_path"],
            recursive=facts["recursive"],
            include=facts["include"],
            exclude=facts["exclude"],
        )

    def _ring(self, lease: JobLease) -> list[WorkerInfo]:
        """Ring for the job's chunks; gives the live workers."""
        with self.db.read() as connection:
            precision = connection.execute(
                sa.select(jobs.c.precision).where(jobs.c.id == lease.job_id)
            ).scalar_one_or_none()
        workers = working(live_workers(self.db))
        if precision is not None:
            ring_workers(self.app, workers, {precision}, self.settings.chunks_in_flight)
        return workers

    # cancelling and deleting --------------------------------------------------------------------------------------

    def _end_or_delete(self, lease: JobLease) -> bool:
        step = delete_slice if lease.status == "deleting" else end_pending_slice
        while step(self.db, lease):
            fault_point("deleting" if lease.status == "deleting" else "cancelling")
            if self.stop.is_set():
                return False
        if lease.status == "deleting":
            try:
                remove_uploads(self.settings, lease.public_id)
                remove_thumbnails(self.settings, lease.public_id)
            except OSError as error:
                log.error("the uploads of job %s cannot be deleted: %s", lease.public_id, error)
                return False
            fault_point("after_delete")
            delete_job_row(self.db, lease)
            remove_thumbnails(self.settings, lease.public_id)  # one that was being made meanwhile
            return True
        return False  # chunks still in a worker's hands come back within seconds; the next sweep looks again


def ring_workers(app: Celery, workers: Iterable[WorkerInfo], precisions: set[str], chunks_in_flight: int) -> None:
    """Ring for each device class that can serve one of the precisions, while its queue is shorter than its slots."""
    slots: dict[str, int] = {}
    for worker in workers:
        slots[worker.device] = slots.get(worker.device, 0) + chunks_in_flight
    for device, given in DEVICE_PRECISIONS.items():
        if not precisions.intersection(given) or not (device in slots or not slots):
            continue
        queue = CLASSIFY_QUEUES[device]
        length = waiting(app, queue)
        for _ in range(max(slots.get(device, 1) - (length or 0), 0) if length is not None else 0):
            ring(app, CLASSIFY, queue)


def held_up(job: Due, workers: Iterable[WorkerInfo]) -> tuple[str, str] | None:
    """(code, sentence) of the notice for a job that no live worker can serve; None where one can."""
    alive = list(workers)
    if not alive:
        return "no_worker", "No worker is running; the job waits until one starts."
    ready = working(alive)
    if not ready:
        return "no_worker", "Every running worker is paused or drained; the job waits until one takes work again."
    able = [worker for worker in ready if job.precision in worker.precisions]
    if not able:
        why = f": {MISSING}" if job.precision == "int8" and any(worker.device == "cpu" for worker in ready) else ""
        return "no_worker", f"No running worker gives the precision {job.precision}{why}; the job waits until one does."
    if not any(job.model_revision in worker.models for worker in able):
        return (
            "no_worker_for_model",
            f"No running worker has the model {job.model}, revision {job.model_revision[:12]}"
            f" ({job.precision}); install it where they run with `mien models add`, or start one that has it.",
        )
    return None


def _limit_notice(most: int) -> str:
    jobs_run = "One of your jobs runs" if most == 1 else f"{most:,} of your jobs run"
    return f"{jobs_run}, as many as may at once (MIEN_RUNNING_JOBS); this one begins when one of them has ended."


def _no_images(folder: str, skipped: int, recursive: bool) -> str:
    files = f"{skipped} other files were skipped" if skipped else "it is empty"
    below = "" if recursive else " (sub-folders were not asked for)"
    return f"There is no image in {folder}{below}: {files}. Images are told by their ending; `include` changes that."


def _unreadable_notice(folders: list[bytes]) -> str | None:
    if not folders:
        return None
    names = ", ".join(path_text(folder) for folder in folders[:3])
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return f"{len(folders)} folders could not be read and were left out: {names}{more}."
