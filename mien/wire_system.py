"""What travels over HTTP about the system itself."""

from __future__ import annotations

import datetime as dt

from pydantic import Field

from mien.wire import Wire, Worker


class Minute(Wire):
    """Throughput in one minute."""

    minute: dt.datetime = Field(description="Its beginning.")
    images: int = Field(description="Images whose results were written in it.")


class Work(Wire):
    """Work that waits or is being done, of all owners."""

    chunks_due: int
    images_due: int
    chunks_leased: int
    images_leased: int
    jobs: dict[str, int] = Field(description="Jobs by state.")


class Disk(Wire):
    """The disk of the data folder, in bytes."""

    total: int
    free: int
    reserve: int = Field(description="What uploads leave free (MIEN_MIN_FREE_BYTES).")


class FailedImages(Wire):
    """Images of your recent jobs that failed for one reason."""

    code: str
    images: int
    jobs: int
    last_job: str | None


class TroubledJob(Wire):
    """A job of yours that failed, or waits for something."""

    job: str
    status: str
    source: str | None
    code: str
    detail: str
    failed_at: dt.datetime | None


class Trouble(Wire):
    """What went wrong lately in your jobs."""

    images: list[FailedImages]
    jobs: list[TroubledJob]


class SystemState(Wire):
    """How Mien is."""

    version: str
    workers: list[Worker]
    queues: dict[str, int | None] = Field(
        description="Doorbells that wait in each queue of the broker; null: it does not answer. Work itself waits in "
        "the ledger (`work`)."
    )
    work: Work
    throughput: list[Minute] = Field(description="The last hour, the latest minute last and not over yet.")
    disk: Disk
    trouble: Trouble
