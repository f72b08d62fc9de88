"""Jobs as the outside sees them: status read from the job's row, lists, and the requests that change a job's status."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.bottleneck import Bottleneck, find_bottleneck
from mien.database import Database
from mien.errors import ConflictError, NotFoundError
from mien.job_filter import ALL_JOBS, JobFilter
from mien.paging import Page, decode_cursor, encode_cursor
from mien.schema import jobs
from mien.stage_times import STAGES
from mien.states import FINAL_STATUSES, JOB_STATUSES

COUNTERS = ("total", "pending", "ok", "no_face", "failed", "cancelled", "faces", "skipped", "cached")


@dataclass(frozen=True)
class Job:
    """A job in one moment. ``counts`` and ``status`` come from one row, so they agree."""

    id: int
    public_id: str
    owner: str
    status: str
    request: str | None
    version: int
    source_type: str
    source_path: bytes | None
    source_text: str | None
    source_identity: str | None
    recursive: bool
    include: list[str]
    exclude: list[str]
    model: str
    model_revision: str
    labels: tuple[str, ...]
    precision: str
    faces_mode: str
    detect_size: int
    min_face_score: float
    min_face: int
    provenance: dict[str, Any]
    metadata: dict[str, Any]
    upload_files: int
    upload_bytes: int
    keep_images_s: int | None
    keep_results_s: int | None
    counts: dict[str, int]
    times: dict[str, dt.datetime | None]
    stage_seconds: dict[str, float]
    """Seconds worked per stage."""
    stage_waits: dict[str, float]
    """Seconds waited per stage."""
    bottleneck: Bottleneck | None
    error_code: str | None
    error: str | None
    notice_code: str | None
    notice: str | None
    images_per_s: float | None
    eta_s: float | None

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more by itself."""
        return self.status in FINAL_STATUSES

    @property
    def complete(self) -> bool:
        """Whether every image has its outcome: exports of a job that is not are marked incomplete."""
        return self.is_final and self.counts["pending"] == 0


def get_job(db: Database, owner: str | None, public_id: str) -> Job:
    """The job of this owner, or of anybody where that is None (an admin asks).

    Raises:
        NotFoundError: ``unknown_job``.
    """
    with db.read() as connection:
        row = connection.execute(_mine(owner, public_id)).one_or_none()
        now = db.now(connection)
    if row is None:
        raise unknown_job(public_id)
    return _as_job(row, now)


def list_jobs(
    db: Database, owner: str, *, after: str | None = None, limit: int = 50, among: JobFilter = ALL_JOBS
) -> Page[Job]:
    """The owner's jobs, newest first."""
    statement = sa.select(jobs).where(*among.conditions(owner)).order_by(jobs.c.id.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(jobs.c.id < decode_cursor(after, "jobs", 1)[0])
    with db.read() as connection:
        rows = connection.execute(statement).all()
        now = db.now(connection)
    shown = rows[:limit]
    return Page(
        items=[_as_job(row, now) for row in shown],
        next=encode_cursor("jobs", shown[-1].id) if shown else after,
        has_more=len(rows) > limit,
    )


def request_cancel(db: Database, owner: str | None, public_id: str) -> Job:
    """Ask for an end: what is classified stays, the rest becomes ``cancelled``. Asking again changes nothing.

    Raises:
        NotFoundError: ``unknown_job``.
        ConflictError: ``job_not_cancellable``, it has ended already.
    """
    job = _change(db, owner, public_id, ("draft", "queued", "expanding", "running"), "cancelling", request=None)
    if job.status not in ("cancelling", "cancelled"):
        raise ConflictError(f"The job is {job.status}; only a job that has not ended can be cancelled.",
                            code="job_not_cancellable")  # fmt: skip
    return job


def request_retry(db: Database, owner: str | None, public_id: str) -> Job:
    """Ask for the failed images to be tried again (or for a failed expansion to be taken up again).

    Raises:
        NotFoundError: ``unknown_job``.
        ConflictError: ``job_not_retryable``, it still runs or nothing failed.
    """
    job = get_job(db, owner, public_id)
    if job.request == "retry":
        return job
    if not job.is_final or (job.counts["failed"] == 0 and job.status != "failed"):
        why = "it has not ended yet" if not job.is_final else "none of its images failed"
        raise ConflictError(f"There is nothing to retry in this job: {why}.", code="job_not_retryable")
    check_images_kept(job)
    return _change(
        db, owner, public_id, FINAL_STATUSES, "queued", request="retry", completed_at=None, cancelled_at=None,
        failed_at=None, error_code=None, error=None,
    )  # fmt: skip


def check_images_kept(job: Job) -> None:
    """Refuse what needs a job's images when they were uploads that are not kept any more.

    Raises:
        ConflictError: ``images_gone``.
    """
    if job.source_type == "upload" and job.upload_files == 0:
        raise ConflictError(
            "The job's uploads are deleted by now (`keep_images`, or a cancelled job); upload them again.",
            code="images_gone",
        )


def _change(db: Database, owner: str | None, public_id: str, allowed: tuple[str, ...], status: str, **also: Any) -> Job:
    with db.write() as connection:
        now = db.now(connection)
        connection.execute(
            jobs.update()
            .where(owned_by(owner, public_id), jobs.c.status.in_(allowed))
            .values({"status": status, f"{status}_at": now, "version": jobs.c.version + 1, **also})
        )
        row = connection.execute(_mine(owner, public_id)).one_or_none()
    if row is None:
        raise unknown_job(public_id)
    return _as_job(row, now)


def owned_by(owner: str | None, public_id: str) -> sa.ColumnElement[bool]:
    """The job of this id, if it is this owner's; None: whoever's it is."""
    same = jobs.c.public_id == public_id
    return same if owner is None else sa.and_(jobs.c.owner == owner, same)


def _mine(owner: str | None, public_id: str) -> sa.Select[Any]:
    return sa.select(jobs).where(owned_by(owner, public_id))


def unknown_job(public_id: str) -> NotFoundError:
    """There is no such job of this owner."""
    return NotFoundError(
        f"There is no job {public_id!r}; `mien jobs` or GET /api/v1/jobs lists yours.", code="unknown_job"
    )


def _as_job(row: sa.Row[Any], now: dt.datetime) -> Job:
    facts = dict(row._mapping)
    rate = _rate(facts, now)
    pending = facts["pending"]
    expanding = facts["expanded_at"] is None
    worked, waited = ({stage: round(facts[stage + kind], 3) for stage in STAGES} for kind in ("_s", "_wait_s"))
    return Job(
        **{name: facts[name] for name in _PLAIN},
        labels=tuple(facts["labels"]),
        counts={name: facts[name] for name in COUNTERS},
        times={f"{s}_at": facts[f"{s}_at"] for s in ("created", *JOB_STATUSES)},
        stage_seconds=worked,
        stage_waits=waited,
        bottleneck=find_bottleneck(
            worked,
            waited,
            images=facts["ok"] + facts["no_face"] + facts["failed"],
            precision=facts["precision"],
            detect_size=facts["detect_size"],
        ),
        images_per_s=rate,
        eta_s=pending / rate if rate and pending and not expanding else None,
    )


_PLAIN = (
    "id", "public_id", "owner", "status", "request", "version", "source_type", "source_path", "source_text",
    "source_identity", "recursive", "include", "exclude", "model", "model_revision", "precision", "faces_mode",
    "detect_size", "min_face_score", "min_face", "provenance", "metadata", "upload_files", "upload_bytes",
    "keep_images_s", "keep_results_s", "error_code", "error",
    "notice_code", "notice",
)  # fmt: skip


def _rate(facts: dict[str, Any], now: dt.datetime) -> float | None:
    """Images that got an outcome per second since the job began to run (to its end, where it has one)."""
    start = facts["expanding_at"]
    done = facts["total"] - facts["pending"]
    if start is None or done == 0:
        return None
    end = facts["completed_at"] or facts["cancelled_at"] or facts["failed_at"] or now
    seconds = (end - start).total_seconds()
    return round(done / seconds, 3) if seconds > 0 else None
