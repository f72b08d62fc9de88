"""What travels over HTTP of comparisons of two jobs."""

from __future__ import annotations

from pydantic import Field

from mien.states import Outcome
from mien.wire import PageOf, Wire


class ComparedJob(Wire):
    """One of the two jobs."""

    job: str
    model: str
    revision: str
    labels: list[str]


class ComparedImages(Wire):
    """Images by how they can be compared."""

    same: int = Field(description="In both jobs under the same path with the same content: these are compared.")
    differ: int = Field(description="Those of them that the jobs say different things about.")
    changed: int = Field(description="In both, with another content.")
    not_read: int = Field(description="In both, but at least one job could not read it.")
    only_a: int
    only_b: int


class ComparedFaces(Wire):
    """Faces of the images that are compared, matched by their boxes (intersection over union of 0.5 or more)."""

    matched: int
    agree: int = Field(description="Matched faces to which both models give the same label.")
    only_a: int
    only_b: int


class LeftOut(Wire):
    """Checked faces that tell nothing about which model is right."""

    unmatched: int = Field(description="Found by one job only.")
    raters_differ: int
    label_of_one_model: int = Field(description="The rater's label is not one of both models.")


class Checked(Wire):
    """Who is right on faces that people have checked (reviews in mode `check`, of either job), unweighted."""

    faces: int
    both_right: int
    only_a_right: int
    only_b_right: int
    neither_right: int
    p_value: float | None = Field(
        description="McNemar's exact test, two-sided: how likely so uneven a split between `only_a_right` and "
        "`only_b_right` is if both models are equally good on the faces that were drawn."
    )
    left_out: LeftOut


class Comparison(Wire):
    """Two jobs over the same images."""

    a: ComparedJob
    b: ComparedJob
    images: ComparedImages
    faces: ComparedFaces
    agreement: float | None = Field(description="Share of the matched faces with the same label; null without any.")
    kappa: float | None = Field(description="Cohen's kappa: agreement beyond chance; null where it is not defined.")
    confusion: list[list[int]] = Field(description="Matched faces: a row per label of A, a column per label of B.")
    checked: Checked | None = Field(description="Null where nobody has checked either job.")


class DifferentFace(Wire):
    """What one job says of a face."""

    face: int
    emotion: str
    confidence: float
    x: float
    y: float
    width: float
    height: float


class FacePair(Wire):
    """One face on which the jobs differ; null where a job has not found it."""

    a: DifferentFace | None
    b: DifferentFace | None


class Difference(Wire):
    """One image that the jobs say different things about."""

    file: str = Field(description="Path relative to the source, with /.")
    outcome_a: Outcome
    outcome_b: Outcome
    faces: list[FacePair] = Field(description="The faces on which they differ.")


class DifferencePage(PageOf[Difference]):
    """Images that differ, in path order. A page may hold few, or none, and more follow."""
