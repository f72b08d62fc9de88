"""What travels over HTTP about reviews: people's answers beside the model's."""

from __future__ import annotations

import datetime as dt

from pydantic import Field

from mien.states import ReviewMode
from mien.wire import PageOf, Wire


class Stratum(Wire):
    """Faces of one predicted label in one band of confidence: low <= confidence < high (the last band: <= 1)."""

    label: str
    low: float
    high: float
    faces: int = Field(description="Faces of the job in it when the sample was drawn.")
    drawn: int


class RaterProgress(Wire):
    """How far a rater is."""

    rater: str
    answers: int
    undecidable: int
    last_answer_at: dt.datetime


class Review(Wire):
    """A review of a job."""

    id: str
    job: str
    mode: ReviewMode = Field(
        description="`check`: a random sample, the model's answer hidden until the rater has given one. `mend`: the "
        "least certain faces first; it states no accuracy."
    )
    labels: list[str]
    seed: int | None = Field(description="Draws the same sample again (check).")
    faces: int | None = Field(description="Faces in the job when the sample was drawn (check).")
    drawn: int | None = Field(description="Faces drawn (check).")
    left: int | None = Field(description="Those of them that were not deleted since (check).")
    strata: list[Stratum]
    raters: list[RaterProgress]
    created_at: dt.datetime


class ReviewList(Wire):
    """The reviews of a job, newest first."""

    items: list[Review]


class ModelAnswer(Wire):
    """What the model says about a face."""

    emotion: str
    confidence: float
    probabilities: dict[str, float]


class RaterAnswer(Wire):
    """What a rater says about a face."""

    rater: str
    emotion: str | None = Field(description="Null: the rater cannot decide.")
    first_emotion: str | None = Field(description="The first answer, which counts in the figures (check).")
    changes: int
    note: str | None
    answered_at: dt.datetime


class ReviewFace(Wire):
    """A face as a rater may see it. Boxes are in pixels of the upright image."""

    place: int | None = Field(description="Its place in the drawn order (check).")
    file: str
    face: int
    x: float
    y: float
    width: float
    height: float
    image_width: int | None
    image_height: int | None
    answer: RaterAnswer | None = Field(description="This rater's answer.")
    model: ModelAnswer | None = Field(description="Null in mode check until this rater has answered.")


class ReviewFacePage(PageOf[ReviewFace]):
    """Faces of a review."""


class Share(Wire):
    """A share of faces with its 95% interval; null where no face tells."""

    value: float | None
    low: float | None
    high: float | None
    faces: int = Field(description="Faces of the sample that it rests on.")


class LabelFigures(Wire):
    """How good the model is at one label."""

    label: str
    precision: Share = Field(description="Of the faces that the model gives this label, the share that people do too.")
    recall: Share = Field(description="Of the faces that people give this label, the share that the model does too.")


class Confusion(Wire):
    """Rows: people's label; columns: the model's."""

    labels: list[str]
    seen: list[list[int]] = Field(description="Faces of the sample.")
    faces: list[list[float]] = Field(description="Faces of the job that they stand for.")


class RaterFigures(Wire):
    """One rater beside the model, by first answers."""

    rater: str
    answers: int
    undecidable: int
    changed: int = Field(description="Answers changed after the model's was seen; the first ones count.")
    accuracy: Share = Field(description="The share of faces about which rater and model agree.")
    kappa: float | None = Field(description="Cohen's kappa of rater and model; null where it is not defined.")


class PairFigures(Wire):
    """Two raters beside each other, over the faces that both decided."""

    raters: list[str]
    faces: int
    agreement: Share
    kappa: float | None


class StratumFigures(Stratum):
    """A stratum with what was answered in it."""

    told: int = Field(description="Faces with a majority among the raters.")
    agreed: int = Field(description="Those of them about which majority and model agree.")


class ReviewFigures(Wire):
    """What a check says about all faces of the job, weighted back from the sample."""

    review: str
    job: str
    faces: int
    drawn: int
    left: int
    answered: int = Field(description="Drawn faces that somebody has answered.")
    told: int = Field(description="Those with a majority among the raters' first answers: the figures rest on them.")
    undecided: int = Field(description="Those without: no label was decided on, or raters are even.")
    covered: float = Field(description="The share of the job's faces whose strata have such faces.")
    accuracy: Share
    per_label: list[LabelFigures]
    confusion: Confusion
    raters: list[RaterFigures]
    pairs: list[PairFigures]
    strata: list[StratumFigures]


class Answer(Wire):
    """One rater's answer about one face, beside the model's."""

    file: str
    face: int
    x: float
    y: float
    width: float
    height: float
    emotion: str = Field(description="The model's label.")
    confidence: float
    review: str
    mode: ReviewMode
    rater: str
    answer: str | None = Field(description="The rater's label; null: cannot be decided.")
    undecidable: bool
    first_answer: str | None
    changes: int
    stands_for: float | None = Field(description="Faces of the job that the drawn face stands for (check).")
    note: str | None
    answered_at: dt.datetime


class AnswerPage(PageOf[Answer]):
    """Answers about a job's faces, in the order in which they were first given."""
