"""What travels over HTTP about results: images with their faces, and jobs and folders in numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mien.states import Outcome
from mien.wire import ImageSeconds, PageOf, Reason, StageSeconds, UsedModel, UsedOptions, Wire


class FaceResult(Wire):
    """One face. Boxes are in pixels of the upright image, clipped to it."""

    face: int = Field(description="0 is the largest face of the image.")
    x: float
    y: float
    width: float
    height: float
    score: float | None = Field(description="The detector's score; null where the image was classified as a whole.")
    emotion: str = Field(description="The most probable label.")
    confidence: float = Field(description="The probability of that label.")
    probabilities: dict[str, float]


class ImageResult(Wire):
    """One image with its outcome and its faces."""

    file: str = Field(description="Path relative to the source, with /.")
    outcome: Outcome
    width: int | None
    height: int | None
    bytes: int | None
    format: str | None
    sha256: str | None
    cached: bool
    error: Reason | None
    faces: list[FaceResult]
    sequence: list[int] = Field(description="Commit number and position: the order in which results were written.")


class JobImageResult(ImageResult):
    """One image of one of several jobs."""

    job: str = Field(description="The id of its job.")


class ResultPage(PageOf[ImageResult]):
    """Results in the order in which they were written: who follows a running job misses none and sees none twice."""


class ResultsAcrossPage(PageOf[JobImageResult]):
    """Results of several jobs: by job, oldest first, then in the order in which they were written."""


class Prediction(Wire):
    """One image that was classified at once."""

    outcome: Literal["ok", "no_face"]
    width: int
    height: int
    bytes: int
    format: str
    sha256: str
    model: UsedModel
    options: UsedOptions
    faces: list[FaceResult]
    stage_seconds: ImageSeconds


class FolderSummary(Wire):
    """A folder of a job, with all below it, in numbers."""

    folder: str = Field(description="Path relative to the source; empty for the source itself.")
    outcomes: dict[str, int] = Field(description="Images per outcome.")
    faces: dict[str, int] = Field(description="Faces per label.")


class FolderPage(PageOf[FolderSummary]):
    """The folders directly in a folder, by name."""


class Summary(Wire):
    """A job, or a folder of it, in numbers."""

    faces: dict[str, int] = Field(description="Faces per label.")
    confidence_histogram: list[int] = Field(description="Faces per confidence, in 20 bins of 0.05 from 0 to 1.")
    outcomes: dict[str, int] = Field(description="Images per outcome.")
    errors: dict[str, int] = Field(description="Failed images per error code.")
    stage_seconds: StageSeconds = Field(description="Seconds worked per stage, of the whole job.")
    stage_waits: StageSeconds = Field(description="Seconds waited per stage, of the whole job.")


class OverallSummary(Wire):
    """Several jobs in numbers."""

    jobs: int
    faces: dict[str, int] = Field(description="Faces per label.")
    confidence_histogram: list[int] = Field(description="Faces per confidence, in 20 bins of 0.05 from 0 to 1.")
    outcomes: dict[str, int] = Field(description="Images per outcome.")
    errors: dict[str, int] = Field(description="Failed images per error code.")


class Citation(Wire):
    """How to cite a job's results."""

    methods: str = Field(description="A sentence for the methods section.")
    bibtex: str
