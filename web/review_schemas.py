"""The bodies and query parameters of reviews."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mien.results import MAX_LIMIT
from mien.review import DEFAULT_SIZE, MAX_RATER, MAX_SIZE
from mien.states import ReviewMode
from web.schemas import Cursor, Query


class ReviewRequest(BaseModel):
    """A review to begin."""

    model_config = ConfigDict(extra="forbid")
    mode: ReviewMode
    size: int = Field(DEFAULT_SIZE, ge=1, le=MAX_SIZE, description="Faces to draw (check); all, where there are fewer.")
    seed: int | None = Field(None, ge=0, lt=2**48, description="Draws the same sample again (check).")


class ReviewPath(BaseModel):
    """The review in an address."""

    review_id: str = Field(description="The review's id.", max_length=64)


class Rating(BaseModel):
    """A rater's answer about one face."""

    model_config = ConfigDict(extra="forbid")
    rater: str = Field(max_length=4 * MAX_RATER, description="The rater's name, the same one each time.")
    file: str = Field(min_length=1, max_length=8000, description="The image, as results give it.")
    face: int = Field(ge=0, lt=2**31)
    emotion: str | None = Field(max_length=100, description="A label of the job's model; null: cannot be decided.")
    note: str | None = Field(None, max_length=2000)


class TakenBack(Query):
    """Which answer to take back."""

    rater: str = Field(min_length=1, max_length=4 * MAX_RATER, description="The rater's name.")
    file: str = Field(min_length=1, max_length=8000, description="The image, as results give it.")
    face: int = Field(ge=0, lt=2**31, description="The face's number.")


class ReviewFacesQuery(Query):
    """Which faces of a review."""

    rater: str = Field(min_length=1, max_length=4 * MAX_RATER, description="The rater's name.")
    state: Literal["open", "answered", "all"] = Field(
        "open",
        description="`open`: those that wait for an answer (check: this rater's; mend: anybody's). `answered`: those "
        "that this rater has answered, the last first. `all`: the whole sample (check).",
    )
    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(20, ge=1, le=MAX_LIMIT, description="Faces on a page.")


class WantedAnswers(Query):
    """Which answers."""

    review: str | None = Field(None, max_length=64, description="Only answers of this review.")
    mode: ReviewMode | None = Field(None, description="Only answers given in this mode.")
    rater: str | None = Field(None, max_length=4 * MAX_RATER, description="Only answers of this rater.")


class AnswersQuery(WantedAnswers):
    """Which answers, and how many."""

    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Answers on a page.")


class AnswersTableQuery(WantedAnswers):
    """How to write a table of answers."""

    spreadsheet: bool = Field(
        False, description="Put a ' before text that a spreadsheet would run as a formula; names are exact without it."
    )
