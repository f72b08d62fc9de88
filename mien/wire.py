"""What travels over HTTP about jobs: the answers of the API as models; ``web`` writes them, ``mien.client`` reads them.

What stands on its own has a module beside this one: results, reviews, comparisons, webhooks, the system.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from mien.states import FINAL_STATUSES, Status

T = TypeVar("T")

AuditAction = Literal[
    "submitted", "uploaded", "read", "exported", "reviewed", "changed", "deleted", "predicted", "signed_in",
    "key_created", "key_revoked",
]  # fmt: skip


class Wire(BaseModel):
    """Base of every answer. Unknown fields are passed over, so that an older client reads a newer server."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Reason(Wire):
    """Why something failed or is held up: a stable code, and a sentence for people."""

    code: str
    detail: str


class Source(Wire):
    """Where a job's images come from."""

    type: str
    path: str | None = Field(
        description="The folder on the server, as text; bytes that are not UTF-8 are escaped. Null for uploads."
    )
    files: int | None = Field(None, description="Uploaded images that are kept; null for a folder.")
    bytes: int | None = Field(None, description="Their size; null for a folder.")
    recursive: bool
    include: list[str]
    exclude: list[str]


class UsedModel(Wire):
    """The model a job uses, in the revision fixed at submission."""

    name: str
    revision: str = Field(description="SHA-256 over the files of the model folder, hexadecimal.")
    labels: list[str]


class UsedOptions(Wire):
    """The options in force for a job, whether asked for or taken from the settings."""

    faces: Literal["detect", "whole"]
    precision: Literal["fp32", "bf16", "fp16", "int8"]
    detect_size: int = Field(description="Longer side at which faces are looked for, in pixels.")
    min_face_score: float
    min_face: int = Field(description="Smallest face that counts: its shorter side, in pixels.")


class Counts(Wire):
    """Images by outcome. ``total`` is ``pending + ok + no_face + failed + cancelled`` at every moment."""

    total: int
    pending: int
    ok: int
    no_face: int
    failed: int
    cancelled: int
    faces: int
    skipped: int = Field(description="Files passed over because they are no images by their ending or pattern.")
    cached: int = Field(description="Images whose result was copied from an earlier job.")


class ImageSeconds(Wire):
    """Where the time went, in seconds."""

    read: float
    decode: float
    detect: float
    classify: float


class StageSeconds(ImageSeconds):
    """Where the time went, in seconds summed over images; ``write`` is the database's."""

    write: float


class JobStatus(Wire):
    """A job in one moment."""

    id: str
    status: Status
    complete: bool = Field(description="Whether every image has its outcome and none will change by itself.")
    source: Source
    model: UsedModel
    options: UsedOptions
    metadata: dict[str, Any]
    keep_images: int | None = Field(description="Seconds after the job's end at which its uploads are deleted.")
    keep_results: int | None = Field(description="Seconds after the job's end at which it is deleted.")
    counts: Counts
    created_at: dt.datetime
    draft_at: dt.datetime | None
    queued_at: dt.datetime | None
    expanding_at: dt.datetime | None
    running_at: dt.datetime | None
    cancelling_at: dt.datetime | None
    completed_at: dt.datetime | None
    cancelled_at: dt.datetime | None
    failed_at: dt.datetime | None
    deleting_at: dt.datetime | None
    images_per_s: float | None = Field(description="Throughput so far.")
    eta_s: float | None = Field(description="Seconds until the end at this throughput, once all images are counted.")
    stage_seconds: StageSeconds = Field(description="Seconds worked per stage.")
    stage_waits: StageSeconds = Field(
        description="Seconds waited per stage: for the disk, a processor core, the GPU, the database."
    )
    bottleneck: Reason | None = Field(description="What takes most of the time, and what to change; null at first.")
    error: Reason | None = Field(description="Why the job failed.")
    notice: Reason | None = Field(description="What holds the job back at the moment.")

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL_STATUSES

    @property
    def done(self) -> int:
        """Images that have their outcome."""
        return self.counts.total - self.counts.pending


class Deleted(Wire):
    """How much a deletion has deleted so far."""

    jobs: int
    images: int
    faces: int
    corrections: int
    uploads: int = Field(description="Uploaded files.")


class Receipt(Wire):
    """A deletion: of a job, of images of it (``files``), or of a content (``sha256``) in all of the owner's jobs."""

    id: str
    kind: Literal["job", "images", "sha256"]
    reason: Literal["request", "retention"] = Field(description="`retention`: the job's own `keep_results` had passed.")
    job: str | None
    files: list[str] | None = Field(
        description="Names of the images, while it goes on; null when it is done: a receipt keeps no names."
    )
    sha256: str | None
    deleted: Deleted
    requested_at: dt.datetime
    finished_at: dt.datetime | None = Field(description="Null while it goes on.")


class PageOf(Wire, Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None = Field(description="Give it as `after` to go on from here.")
    has_more: bool = Field(description="Whether more is there now.")


class UploadedFile(Wire):
    """An image that has arrived."""

    file: str = Field(description="The path that the client gave it.")
    bytes: int
    sha256: str
    received_at: dt.datetime


class UploadPage(PageOf[UploadedFile]):
    """What has arrived, in path order."""


class Skipped(Wire):
    """A file of an archive that was passed over."""

    file: str
    reason: Literal["not_an_image", "hidden"]


class Received(Wire):
    """What one upload request brought, and what the job holds now."""

    files: int = Field(description="Images that arrived with this request.")
    bytes: int
    replaced: int = Field(description="Those of them that replaced an earlier image of the same path.")
    skipped: dict[str, int] = Field(description="Files of an archive that were passed over, by reason.")
    skipped_files: list[Skipped] = Field(description="The first hundred of them.")
    total_files: int = Field(description="Images that the job holds now.")
    total_bytes: int


class JobPage(PageOf[JobStatus]):
    """Jobs, newest first."""


class ReceiptPage(PageOf[Receipt]):
    """Receipts, newest first."""


class AuditEntry(Wire):
    """Who did what, and when."""

    at: dt.datetime
    owner: str = Field(description="Who did it: the owner that the key stands for.")
    key_id: int | None = Field(description="By which key (`mien keys list`); null where none was needed.")
    action: AuditAction
    detail: str | None = Field(
        description="Of an export its kind, else the operation; `retention`: the job's own time."
    )
    job: str | None
    receipt: str | None = Field(description="The receipt of a deletion.")


class AuditPage(PageOf[AuditEntry]):
    """Entries of the audit log, newest first."""


class Check(Wire):
    """One part that Mien needs, and whether it answers."""

    ok: bool
    detail: str


class FieldProblem(Wire):
    """One of several defects of a request."""

    field: str | None = None
    detail: str


class Problem(Wire):
    """An error (RFC 9457): ``code`` is stable, ``detail`` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | None = Field(None, description="The part of the request that is wrong.")
    errors: list[FieldProblem] | None = Field(None, description="Every defect, where there are several.")
    checks: dict[str, Check] | None = Field(None, description="Of /readyz: what works and what does not.")


class Health(Wire):
    """The front end lives."""

    status: Literal["alive"]
    version: str


class Readiness(Wire):
    """Mien can do its work."""

    status: Literal["ready"]
    checks: dict[str, Check]
