"""What travels over HTTP about the system itself: its models, its workers, how it is."""

from __future__ import annotations

import datetime as dt

from pydantic import Field

from mien.wire import Wire


class ModelInfo(Wire):
    """An installed model."""

    name: str
    revision: str
    labels: list[str]
    precisions: dict[str, list[str]] = Field(description="Precisions by device.")
    width: int = Field(description="Width of the model's input, in pixels.")
    height: int
    default: bool = Field(description="Whether jobs that name no model use this one.")
    int8_cost: str | None = Field(
        description="What int8 costs by the model's record, as the end of a sentence; null without an int8 export."
    )
    notes: str


class ModelCard(ModelInfo):
    """An installed model with what its makers say of it."""

    card: str | None = Field(description="The model card (README.md of the model folder), as Markdown.")
    crop_margin: float = Field(description="Share of the box's longer side that is added on each side of a face.")
    grey: bool = Field(description="Whether the model sees grey crops.")
    workers: list[str] = Field(description="Live workers that can serve it.")


class ModelList(Wire):
    """The installed models."""

    items: list[ModelInfo]


class Worker(Wire):
    """A live worker, as it described itself last."""

    name: str
    host: str
    device: str
    device_name: str | None = Field(None, description="The processor or GPU, as it calls itself.")
    precisions: list[str]
    models: list[str] = Field(description="Revisions of the models that it can serve.")
    loaded: list[str] | None = Field(None, description="Those that its engines have used lately.")
    engines: int
    state: str = Field(
        description="`active`; `paused`: it holds nothing and takes nothing; `draining`: it finishes what it holds; "
        "`drained`: it has, and can be stopped."
    )
    wanted: str = Field("active", description="What its operator wants: `active`, `paused` or `drained`.")
    images_per_s: float | None
    version: str
    started_at: dt.datetime
    seen_at: dt.datetime


class WorkerList(Wire):
    """The live workers."""

    items: list[Worker]


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
