"""Parts of :class:`mien.client.Client`: reviews, people's answers beside the model's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from mien import wire_reviews as wire
from mien.states import ReviewMode
from mien.transport import Transport, path_part


class ClientReviews(Transport):
    """What a client can do about reviews."""

    def begin_review(
        self, job_id: str, mode: ReviewMode = "check", *, size: int | None = None, seed: int | None = None
    ) -> wire.Review:
        """Draw a random sample of a job's faces (check), or open its list of doubtful faces (mend).

        Raises:
            ConflictError: ``job_not_finished``, ``nothing_to_review``, ``job_is_draft``.
        """
        body = {"mode": mode, "size": size, "seed": seed}
        sent = {name: value for name, value in body.items() if value is not None}
        return self._read(wire.Review, self._ask("POST", f"/jobs/{path_part(job_id)}/reviews", json=sent))

    def reviews(self, job_id: str) -> list[wire.Review]:
        """The job's reviews, newest first."""
        return self._read(wire.ReviewList, self._ask("GET", f"/jobs/{path_part(job_id)}/reviews")).items

    def review(self, review_id: str) -> wire.Review:
        """A review with the progress of its raters.

        Raises:
            NotFoundError: ``unknown_review``.
        """
        return self._read(wire.Review, self._ask("GET", f"/reviews/{path_part(review_id)}"))

    def review_faces(
        self,
        review_id: str,
        rater: str,
        *,
        state: Literal["open", "answered", "all"] = "open",
        page_size: int = 100,
    ) -> Iterator[wire.ReviewFace]:
        """The faces that wait for this rater, or that this rater has answered; in mode check without the model's
        answer until the rater has given one."""
        query = {"rater": rater, "state": state, "limit": page_size}
        for page in self._pages(wire.ReviewFacePage, f"/reviews/{path_part(review_id)}/faces", query):
            yield from page.items

    def rate(
        self, review_id: str, rater: str, file: str, face: int, emotion: str | None, *, note: str | None = None
    ) -> wire.ReviewFace:
        """Give a rater's answer about a face (None: cannot be decided) and get the model's.

        Raises:
            NotFoundError: ``unknown_face``, ``unknown_image``: deleted meanwhile, or not in the sample.
            UnprocessableError: ``unknown_label``.
        """
        body = {"rater": rater, "file": file, "face": face, "emotion": emotion, "note": note}
        return self._read(wire.ReviewFace, self._ask("PUT", f"/reviews/{path_part(review_id)}/answers", json=body))

    def take_answer_back(self, review_id: str, rater: str, file: str, face: int) -> None:
        """Take back an answer given in mode mend.

        Raises:
            ConflictError: ``answer_counts``: in mode check the first answer counts.
        """
        query = {"rater": rater, "file": file, "face": face}
        self._ask("DELETE", f"/reviews/{path_part(review_id)}/answers", params=query)

    def review_figures(self, review_id: str) -> wire.ReviewFigures:
        """What a check says: accuracy per label with intervals, Cohen's kappa.

        Raises:
            ConflictError: ``no_figures``: mode mend states none.
        """
        return self._read(wire.ReviewFigures, self._ask("GET", f"/reviews/{path_part(review_id)}/figures"))

    def answers(
        self,
        job_id: str,
        *,
        review: str | None = None,
        mode: ReviewMode | None = None,
        rater: str | None = None,
        page_size: int = 500,
    ) -> Iterator[wire.Answer]:
        """All answers about a job's faces, beside the model's, in the order in which they were given."""
        query = {"review": review, "mode": mode, "rater": rater, "limit": page_size}
        for page in self._pages(wire.AnswerPage, f"/jobs/{path_part(job_id)}/answers", query):
            yield from page.items
