"""Which of an owner's jobs: by state, model, time and metadata; the same for lists, results and sums over jobs."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mien.schema import job_metadata, jobs

MAX_KEY = 200
MAX_VALUE = 500
_SHORTEST_REVISION = 8


@dataclass(frozen=True)
class JobFilter:
    """What the jobs have in common; None and empty: anything.

    ``model`` is ``name``, ``name@revision`` or a revision, each revision by its first digits. ``metadata`` holds the
    texts of plain values (:func:`searchable`). A job has finished when it completed, failed or was cancelled.
    """

    status: str | None = None
    model: str | None = None
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    finished_after: dt.datetime | None = None
    finished_before: dt.datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def conditions(self, owner: str) -> list[sa.ColumnElement[bool]]:
        """As conditions on ``jobs``."""
        finished = sa.func.coalesce(
            jobs.c.completed_at, jobs.c.cancelled_at, jobs.c.failed_at, type_=jobs.c.failed_at.type
        )
        found: list[sa.ColumnElement[bool]] = [jobs.c.owner == owner]
        if self.status is not None:
            found.append(jobs.c.status == self.status)
        if self.model is not None:
            found.append(_is_model(self.model))
        if self.created_after is not None:
            found.append(jobs.c.created_at >= self.created_after)
        if self.created_before is not None:
            found.append(jobs.c.created_at < self.created_before)
        if self.finished_after is not None:
            found.append(finished >= self.finished_after)
        if self.finished_before is not None:
            found.append(finished < self.finished_before)
        for key, value in self.metadata.items():
            same = (job_metadata.c.job_id == jobs.c.id, job_metadata.c.key == key, job_metadata.c.value == value)
            found.append(sa.exists().where(*same))
        return found


ALL_JOBS = JobFilter()


def searchable(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The values that jobs can be found by: texts as they are, numbers, true and false as in JSON.

    Lists, objects and null are no plain values; keys over 200 and texts over 500 characters are too long for an index.
    """
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in metadata.items()
        if isinstance(value, str | int | float)
    }
    return {key: text for key, text in texts.items() if len(key) <= MAX_KEY and len(text) <= MAX_VALUE}


def _is_model(reference: str) -> sa.ColumnElement[bool]:
    name, at, revision = reference.partition("@")
    if at:
        return sa.and_(jobs.c.model == name, jobs.c.model_revision.startswith(revision, autoescape=True))
    named = jobs.c.model == name
    if len(name) < _SHORTEST_REVISION:
        return named
    return sa.or_(named, jobs.c.model_revision.startswith(name, autoescape=True))
