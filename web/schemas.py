"""The query parameters and path parts of the API. Unknown parameters are refused, so that a typing error is seen."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mien.errors import InvalidRequestError
from mien.export import MAX_PART
from mien.job_filter import JobFilter
from mien.results import MAX_LIMIT, ResultFilter
from mien.states import EndedOutcome, Status

MAX_WAIT_S = 30
METADATA_PREFIX = "metadata."

Cursor = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class Query(BaseModel):
    """Base of every query."""

    model_config = ConfigDict(extra="forbid")


class NoQuery(Query):
    """Nothing is asked but the address itself."""


class JobPath(BaseModel):
    """The job in an address."""

    job_id: str = Field(description="The job's id, as POST /api/v1/jobs gave it.", max_length=64)


class ModelPath(BaseModel):
    """The model in an address."""

    name: str = Field(description="`default`, a name, `name@revision`, or a revision.", max_length=300)


class WorkerPath(BaseModel):
    """The worker in an address."""

    worker_name: str = Field(description="Its name, as GET /api/v1/workers gives it.", max_length=200)


class WorkerState(BaseModel):
    """What is wanted of a worker."""

    model_config = ConfigDict(extra="forbid")
    state: Literal["active", "paused", "drained"] = Field(description="What it is to do from now on.")


class ModelChoice(BaseModel):
    """A model to take."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(min_length=1, max_length=300, description="An installed model: name, or name@revision.")


class SubmitHeader(BaseModel):
    """What goes with a submission."""

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of yours, new for each new job: repeats with the same key and body get the same job.",
    )


class JobHeader(BaseModel):
    """What the client knows already."""

    if_none_match: str | None = Field(None, alias="If-None-Match", description="The ETag of an earlier answer.")


class AmongJobs(BaseModel):
    """Which jobs. Besides these parameters, ``metadata.KEY=VALUE`` finds jobs by a plain value of their metadata."""

    model_config = ConfigDict(extra="allow")

    owner: str | None = Field(None, max_length=80, description="Jobs of this owner instead of yours (scope `admin`).")
    status: Status | None = Field(None, description="Only jobs in this state.")
    model: str | None = Field(
        None, max_length=300, description="Only jobs of this model: `name`, `name@revision`, or a revision."
    )
    created_after: AwareDatetime | None = Field(None, description="Only jobs made at this time or later.")
    created_before: AwareDatetime | None = Field(None, description="Only jobs made before this time.")
    finished_after: AwareDatetime | None = Field(None, description="Only jobs that ended at this time or later.")
    finished_before: AwareDatetime | None = Field(None, description="Only jobs that ended before this time.")

    @model_validator(mode="after")
    def _only_metadata_besides(self) -> Self:
        for name in self.model_extra or {}:
            if not name.startswith(METADATA_PREFIX) or name == METADATA_PREFIX:
                # not a ValueError: those of a whole model name no field
                raise InvalidRequestError(
                    f"`{name}`: there is no such parameter; metadata is searched by `metadata.KEY=VALUE`.", field=name
                )
        return self

    @property
    def among(self) -> JobFilter:
        """As the ledger takes it."""
        return JobFilter(
            status=self.status,
            model=self.model,
            created_after=self.created_after,
            created_before=self.created_before,
            finished_after=self.finished_after,
            finished_before=self.finished_before,
            metadata={
                name.removeprefix(METADATA_PREFIX): str(value) for name, value in (self.model_extra or {}).items()
            },
        )


class JobsQuery(AmongJobs):
    """Which jobs, and how many."""

    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="Jobs on a page.")


class JobQuery(Query):
    """How long to wait for news."""

    wait: float = Field(
        0,
        ge=0,
        le=MAX_WAIT_S,
        allow_inf_nan=False,
        description="Seconds to wait for a change from the state in If-None-Match, or without one for the end of the "
        "job. Answers at once when half of the server's threads wait already.",
    )


class WantedResults(BaseModel):
    """Which results. Filters on faces keep an image when one of its faces meets all of them."""

    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Images on a page.")
    emotion: str | None = Field(None, max_length=100, description="Only images with a face of this label.")
    label: str | None = Field(None, max_length=100, description="Another name for `emotion`.")
    outcome: EndedOutcome | None = Field(None, description="Only images with this outcome.")
    min_confidence: float | None = Field(None, ge=0, le=1, description="Lowest confidence of a face.")
    max_confidence: float | None = Field(None, ge=0, le=1, description="Highest confidence of a face.")
    prefix: str | None = Field(None, max_length=2000, description="Only files whose path begins so.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.emotion is not None and self.label is not None and self.emotion != self.label:
            raise ValueError("`label` and `emotion` are two names of one filter; give one of them")
        low, high = self.min_confidence, self.max_confidence
        if low is not None and high is not None and low > high:
            raise ValueError("`min_confidence` is above `max_confidence`: no face could meet both")
        return self

    @property
    def wanted(self) -> ResultFilter:
        """As the ledger takes it."""
        return ResultFilter(
            emotion=self.emotion or self.label,
            outcome=self.outcome,
            min_confidence=self.min_confidence,
            max_confidence=self.max_confidence,
            prefix=self.prefix,
        )


class ResultsQuery(WantedResults):
    """Which results of a job."""

    model_config = ConfigDict(extra="forbid")


class ResultsAcrossQuery(WantedResults, AmongJobs):
    """Which results of which jobs."""


class SummaryQuery(Query):
    """What is summed up."""

    folder: str = Field(
        "", max_length=2000, description="Only what lies in this folder (relative to the source) and below."
    )


class FoldersQuery(SummaryQuery):
    """Which folders."""

    after: str | None = Field(None, min_length=1, max_length=4000, description="`next` of the page before.")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Folders on a page.")


class ExportQuery(Query):
    """Which part of an export, and which columns."""

    columns: str | None = Field(
        None, min_length=1, max_length=4000, description="The columns wanted, in their order, separated by commas."
    )
    limit: int | None = Field(
        None,
        ge=1,
        le=MAX_PART,
        description="At most so many images: one part of the export. `Mien-Next` then leads to the part that follows; "
        "the parts put together are the whole, byte for byte.",
    )
    after: Cursor | None = Field(None, description="`Mien-Next` of the part before.")


class TableQuery(ExportQuery):
    """How to write a table."""

    spreadsheet: bool = Field(
        False, description="Put a ' before text that a spreadsheet would run as a formula; names are exact without it."
    )
