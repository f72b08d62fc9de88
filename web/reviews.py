"""Reviews: a sample to check a job by, or its least certain faces to mend; answers, figures, exports."""

from __future__ import annotations

from typing import Any

from flask import Response, make_response, request, url_for
from flask_openapi.blueprint import APIBlueprint

from mien import wire_reviews as wire
from mien.answering import answer, undo
from mien.export import WHOLE
from mien.jobs import get_job
from mien.review import Review, get_review, list_reviews, start_check, start_mend
from mien.review_export import answers_csv, answers_jsonl, answers_page
from mien.review_faces import faces_page
from mien.review_figures import review_figures
from web.api import as_json
from web.auth import caller
from web.exports import CSV, JSON_LINES, streamed
from web.json_body import require_json
from web.openapi import LIMITS, LOCATION, REQUEST_ID, SECURITY, file_answer, json_answer, problems
from web.review_schemas import (
    AnswersQuery,
    AnswersTableQuery,
    Rating,
    ReviewFacesQuery,
    ReviewPath,
    ReviewRequest,
    TakenBack,
    WantedAnswers,
)
from web.schemas import JobPath, NoQuery
from web.services import services

reviews = APIBlueprint(
    "reviews",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[
        {"name": "reviews", "description": "People's answers beside the model's: check it, or mend its answers."}
    ],
    abp_security=SECURITY,
)
_LOCATION = {"Location": {**LOCATION["Location"], "description": "Address of the review."}}


@reviews.before_request
def _read_body() -> None:
    if request.endpoint in ("reviews.begin", "reviews.rate"):
        require_json()


@reviews.post(
    "/jobs/<job_id>/reviews",
    operation_id="begin_review",
    responses={201: json_answer(wire.Review, "The review.", _LOCATION), **problems(403, 404, 409, 413, 415)},
)
def begin(path: JobPath, body: ReviewRequest, query: NoQuery) -> Response:
    """Begin a review: draw a random sample (check), or open the job's list of doubtful faces (mend).

    The sample is stratified by the model's label and by confidence, so that rare labels and doubtful faces are seen
    enough; figures weigh it back. A job has one review in mode mend: asking again gives the same.
    """
    parts, owner = services(), caller().owner
    if body.mode == "check":
        review = start_check(parts.db, owner, path.job_id, size=body.size, seed=body.seed)
    else:
        review = start_mend(parts.db, owner, path.job_id)
    made = as_json(as_review(review), 201)
    made.headers["Location"] = url_for("reviews.one", review_id=review.public_id)
    return made


@reviews.get(
    "/jobs/<job_id>/reviews",
    operation_id="list_reviews",
    responses={200: json_answer(wire.ReviewList, "The job's reviews, newest first."), **problems(404)},
)
def of_job(path: JobPath, query: NoQuery) -> Response:
    """List a job's reviews with the progress of their raters."""
    job = get_job(services().db, caller().owner, path.job_id)
    return as_json(wire.ReviewList(items=[as_review(review) for review in list_reviews(services().db, job)]))


@reviews.get(
    "/reviews/<review_id>",
    operation_id="get_review",
    responses={200: json_answer(wire.Review, "The review."), **problems(404)},
)
def one(path: ReviewPath, query: NoQuery) -> Response:
    """Read a review: its sample in numbers, and how far each rater is."""
    return as_json(as_review(_review(path.review_id)))


@reviews.get(
    "/reviews/<review_id>/faces",
    operation_id="list_review_faces",
    responses={200: json_answer(wire.ReviewFacePage, "A page of faces."), **problems(404)},
)
def faces(path: ReviewPath, query: ReviewFacesQuery) -> Response:
    """Read the faces that wait for a rater, or those that the rater has answered.

    In mode check `model` is null until this rater has answered the face.
    """
    page = faces_page(
        services().db, _review(path.review_id), query.rater, state=query.state, after=query.after, limit=query.limit
    )
    return as_json(_page(wire.ReviewFacePage, page.items, page.next, page.has_more))


@reviews.put(
    "/reviews/<review_id>/answers",
    operation_id="rate_face",
    responses={
        200: json_answer(wire.ReviewFace, "The face with the rater's answer and the model's."),
        **problems(403, 404, 413, 415, 422),
    },
)
def rate(path: ReviewPath, body: Rating, query: NoQuery) -> Response:
    """Give a rater's answer about a face; the model's is in the reply.

    In mode check the first answer counts in the figures; a later one of the same rater is kept beside it.
    """
    review = _review(path.review_id)
    found = answer(
        services().db, review, rater=body.rater, file=body.file, face=body.face, emotion=body.emotion, note=body.note
    )
    return as_json(wire.ReviewFace.model_validate(found))


@reviews.delete(
    "/reviews/<review_id>/answers",
    operation_id="take_answer_back",
    responses={
        204: {"description": "The face waits again.", "headers": REQUEST_ID | LIMITS},
        **problems(403, 404, 409),
    },
)
def take_back(path: ReviewPath, query: TakenBack) -> Response:
    """Take an answer back (mode mend); the face waits again."""
    undo(services().db, _review(path.review_id), rater=query.rater, file=query.file, face=query.face)
    return make_response("", 204)


@reviews.get(
    "/reviews/<review_id>/figures",
    operation_id="get_review_figures",
    responses={200: json_answer(wire.ReviewFigures, "The figures as they are now."), **problems(404, 409)},
)
def figures(path: ReviewPath, query: NoQuery) -> Response:
    """Read what a check says: accuracy per label with 95% intervals; Cohen's kappa of raters, and with the model."""
    return as_json(wire.ReviewFigures.model_validate(review_figures(services().db, _review(path.review_id))))


@reviews.get(
    "/jobs/<job_id>/answers",
    operation_id="list_answers",
    responses={200: json_answer(wire.AnswerPage, "A page of answers."), **problems(404)},
)
def answers(path: JobPath, query: AnswersQuery) -> Response:
    """Read all raters' answers about a job's faces, beside the model's."""
    job = get_job(services().db, caller().owner, path.job_id)
    page = answers_page(services().db, job, after=query.after, limit=query.limit, **_wanted(query))
    return as_json(_page(wire.AnswerPage, page.items, page.next, page.has_more))


@reviews.get(
    "/jobs/<job_id>/answers.csv",
    operation_id="answers_csv",
    responses={200: file_answer("One row per answer.", CSV), **problems(404)},
)
def csv(path: JobPath, query: AnswersTableQuery) -> Response:
    """Download the raters' answers, one row each, with mode and rater."""
    job = get_job(services().db, caller().owner, path.job_id)
    lines = answers_csv(services().db, job, spreadsheet=query.spreadsheet, **_wanted(query))
    return streamed(job, WHOLE, lines, CSV, "answers.csv")


@reviews.get(
    "/jobs/<job_id>/answers.jsonl",
    operation_id="answers_jsonl",
    responses={200: file_answer("One JSON object per answer and line.", JSON_LINES), **problems(404)},
)
def jsonl(path: JobPath, query: WantedAnswers) -> Response:
    """Download the raters' answers as JSON Lines, with mode and rater."""
    job = get_job(services().db, caller().owner, path.job_id)
    return streamed(job, WHOLE, answers_jsonl(services().db, job, **_wanted(query)), JSON_LINES, "answers.jsonl")


def as_review(review: Review) -> wire.Review:
    """A review as the API gives it."""
    return wire.Review.model_validate(
        {
            "id": review.public_id,
            "job": review.job.public_id,
            "mode": review.mode,
            "labels": list(review.job.labels),
            "seed": review.seed,
            "faces": review.faces,
            "drawn": review.drawn,
            "left": review.left,
            "strata": review.strata,
            "raters": review.raters,
            "created_at": review.created_at,
        }
    )


def _review(public_id: str) -> Review:
    return get_review(services().db, caller().owner, public_id)


def _wanted(query: WantedAnswers) -> dict[str, str | None]:
    return {"review": query.review, "mode": query.mode, "rater": query.rater}


def _page(model: type[Any], items: list[dict[str, Any]], after: str | None, has_more: bool) -> Any:
    return model.model_validate({"items": items, "next": after, "has_more": has_more})
