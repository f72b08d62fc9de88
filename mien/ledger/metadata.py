"""What a job can be found by: the plain values of its metadata, written with the job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from mien.job_filter import searchable
from mien.schema import job_metadata


def write_metadata(connection: sa.Connection, job_id: int, metadata: Mapping[str, Any]) -> None:
    """Write what a new job can be found by, in the transaction that makes it."""
    if found := searchable(metadata):
        connection.execute(
            job_metadata.insert(), [{"job_id": job_id, "key": key, "value": value} for key, value in found.items()]
        )
