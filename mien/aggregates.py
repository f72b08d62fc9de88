"""Results in numbers: faces per label, confidence, outcomes and errors of a job, of its folders, and over jobs.

They are added up from the tallies of the chunks (:mod:`mien.ledger.tallies`), not from the rows of images and faces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.job_filter import ALL_JOBS, JobFilter
from mien.jobs import Job
from mien.ledger.tallies import ENDED, HISTOGRAM_BINS, sum_counts
from mien.paths import exact_name
from mien.schema import images, jobs, tallies
from mien.states import OUTCOMES

FOLDERS_PER_PAGE = 100


def summary(db: Database, job: Job, *, folder: str = "") -> dict[str, Any]:
    """Faces per label, a histogram of confidence, outcomes, errors by code, and seconds per stage.

    With ``folder`` (relative to the source) only what lies in it and below; its ``outcomes`` hold nothing pending.
    """
    top = _as_bytes(folder)
    with db.read() as connection:
        rows = connection.execute(_tallied(job.id, top)).all()
        errors = _errors(connection, [images.c.job_id == job.id, *_below_path(top)])
    by_label, histogram = sum_counts((row.counts for row in rows), job.labels)
    outcomes = {name: sum(row._mapping[name] for row in rows) for name in ENDED} if top else job.counts
    return {
        "faces": dict(by_label),
        "confidence_histogram": histogram,
        "outcomes": {name: outcomes.get(name, 0) for name in OUTCOMES},
        "errors": errors,
        "stage_seconds": job.stage_seconds,
        "stage_waits": job.stage_waits,
    }


def folders(
    db: Database, job: Job, *, folder: str = "", after: str | None = None, limit: int = FOLDERS_PER_PAGE
) -> tuple[list[dict[str, Any]], bool]:
    """The folders directly in ``folder``, by name from ``after`` on, each with all below it; and whether more follow.

    Images that lie in ``folder`` itself come first, under its own name.
    """
    top = _as_bytes(folder)
    with db.read() as connection:
        rows = connection.execute(_tallied(job.id, top)).all()
    found: dict[bytes, list[sa.Row[Any]]] = {}
    for row in rows:
        found.setdefault(_child(row.folder, top), []).append(row)
    names = sorted(found) if after is None else sorted(name for name in found if name > _as_bytes(after))
    return [_folder_item(name, found[name], job.labels) for name in names[:limit]], len(names) > limit


def summary_over(db: Database, owner: str, among: JobFilter = ALL_JOBS) -> dict[str, Any]:
    """The numbers over the owner's jobs: how many, and what is in them. Jobs that are being deleted are left out."""
    counters = [jobs.c[name] for name in OUTCOMES]
    by_labels: dict[tuple[str, ...], list[int]] = {}
    with db.read() as connection:
        mine = connection.execute(
            sa.select(jobs.c.id, jobs.c.labels, *counters).where(
                *among.conditions(owner), jobs.c.status != "deleting"
            )
        ).all()  # fmt: skip
        for row in mine:
            by_labels.setdefault(tuple(row.labels), []).append(row.id)
        faces: dict[str, int] = {}
        histogram = [0] * HISTOGRAM_BINS
        for labels, ids in by_labels.items():
            counts = sa.select(tallies.c.counts).where(tallies.c.job_id.in_(ids))
            by_label, bins = sum_counts(connection.execute(counts).scalars(), labels)
            for label, number in by_label.items():
                faces[label] = faces.get(label, 0) + number
            histogram = [one + other for one, other in zip(histogram, bins, strict=True)]
        failed = [row.id for row in mine if row.failed]
        errors = _errors(connection, [images.c.job_id.in_(failed)]) if failed else {}
    return {
        "jobs": len(mine),
        "faces": faces,
        "confidence_histogram": histogram,
        "outcomes": {name: sum(row._mapping[name] for row in mine) for name in OUTCOMES},
        "errors": errors,
    }


def _tallied(job_id: int, top: bytes) -> sa.Select[Any]:
    wanted = (tallies.c.folder, tallies.c.counts, *(tallies.c[name] for name in ENDED))
    statement = sa.select(*wanted).where(tallies.c.job_id == job_id)
    if not top:
        return statement
    inside = sa.and_(tallies.c.folder >= top + b"/", tallies.c.folder < top + b"0")  # 0 follows / among bytes
    return statement.where(sa.or_(tallies.c.folder == top, inside))


def _below_path(top: bytes) -> list[sa.ColumnElement[bool]]:
    return [images.c.path >= top + b"/", images.c.path < top + b"0"] if top else []


def _errors(connection: sa.Connection, where: Iterable[sa.ColumnElement[bool]]) -> dict[str, int]:
    rows = connection.execute(
        sa.select(images.c.error_code.label("code"), sa.func.count().label("number"))
        .where(*where, images.c.outcome == "failed")
        .group_by(images.c.error_code)
        .order_by(images.c.error_code)
    )
    return {str(row.code): int(row.number) for row in rows}


def _child(folder: bytes, top: bytes) -> bytes:
    """The folder directly in ``top`` that holds ``folder``; ``top`` itself where they are the same."""
    if folder == top:
        return top
    start = len(top) + 1 if top else 0
    end = folder.find(b"/", start)
    return folder if end < 0 else folder[:end]


def _folder_item(name: bytes, rows: Sequence[sa.Row[Any]], labels: Sequence[str]) -> dict[str, Any]:
    by_label, _ = sum_counts((row.counts for row in rows), labels)
    return {
        "folder": exact_name(name),
        "outcomes": {outcome: sum(row._mapping[outcome] for row in rows) for outcome in ENDED},
        "faces": dict(by_label),
    }


def _as_bytes(folder: str) -> bytes:
    return folder.strip("/").encode("utf-8", "surrogateescape")
