"""The pages of reviews: begin one, rate its faces one by one, see what a check says. They work without script too."""

from __future__ import annotations

from typing import Any, cast

from flask import Blueprint, Flask, Response, make_response, redirect, render_template, request, url_for

from mien.answering import answer_face, undo_face
from mien.errors import InvalidRequestError, MienError, NotFoundError
from mien.jobs import Job, get_job
from mien.ledger.review import Answer
from mien.review import (
    DEFAULT_SIZE,
    MAX_SIZE,
    Review,
    checked_rater,
    get_review,
    list_reviews,
    start_check,
    start_mend,
)
from mien.review_faces import answered_face, faces_page
from mien.review_figures import review_figures
from web.auth import caller
from web.boxes import boxes_of
from web.pictures import check_may_be_shown
from web.review_charts import heat, interval_chart
from web.services import services

AHEAD = 3
"""Faces looked up at once: the one to rate and those whose pictures are made ahead."""
SIZES = (50, 100, 200, 500, 1000)

review_pages = Blueprint("review_pages", __name__)


def install(app: Flask) -> None:
    """Serve the pages of reviews."""
    app.register_blueprint(review_pages)
    app.add_template_filter(heat, "heat")


@review_pages.get("/jobs/<job_id>/review")
def of_job(job_id: str) -> Response:
    """What can be reviewed, and the reviews that there are."""
    return _job_page(_job(job_id))


@review_pages.post("/jobs/<job_id>/review")
def begin(job_id: str) -> Response:
    """Begin a review, or go on with the one in mode mend, and lead to its first face."""
    parts, owner = services(), caller().owner
    job = _job(job_id)
    try:
        rater = checked_rater(request.form.get("rater", ""))
        if request.form.get("mode") == "mend":
            review = start_mend(parts.db, owner, job_id)
        else:
            review = start_check(parts.db, owner, job_id, size=_size(request.form.get("size", "")))
    except MienError as error:
        if error.status >= 500:
            raise
        return _job_page(job, error, error.status)
    return _to_desk(review, rater)


@review_pages.get("/reviews/<review_id>")
def desk(review_id: str) -> Response:
    """The face that comes next for a rater; ``again`` shows one that was rated already."""
    review = _review(review_id)
    rater = request.args.get("rater", "")
    if not rater.strip():
        return make_response(render_template("review_rater.html", review=review, job=review.job))
    return _desk_page(review, checked_rater(rater))


@review_pages.post("/reviews/<review_id>")
def rate(review_id: str) -> Response:
    """Keep an answer, or take the last one back; then the next face, or only the desk for the script."""
    review = _review(review_id)
    rater = checked_rater(request.form.get("rater", ""))
    given = Answer(review.id, _number("image"), _number("face"), rater, request.form.get("emotion") or None)
    trouble = None
    said = None
    try:
        if "undo" in request.form:
            undo_face(services().db, review, given)
        else:
            said = answer_face(services().db, review, given)
    except NotFoundError as error:
        trouble = error  # deleted meanwhile: the next one
    if request.args.get("part") == "desk":
        return _desk_page(_review(review_id), rater, part=True, said=said, trouble=trouble)
    return _to_desk(review, rater)


@review_pages.get("/reviews/<review_id>/figures")
def figures(review_id: str) -> Response:
    """What a check says."""
    review = _review(review_id)
    found = review_figures(services().db, review)
    return make_response(
        render_template(
            "review_figures.html",
            review=review,
            job=review.job,
            figures=found,
            precision=interval_chart([(row["label"], row["precision"]) for row in found["per_label"]]),
            recall=interval_chart([(row["label"], row["recall"]) for row in found["per_label"]]),
        )
    )


def _job_page(job: Job, error: MienError | None = None, status: int = 200) -> Response:
    body = render_template(
        "review.html",
        job=job,
        reviews=list_reviews(services().db, job),
        error=error,
        form=request.form,
        sizes=[size for size in SIZES if size < job.counts["faces"]] or [DEFAULT_SIZE],
        default_size=DEFAULT_SIZE,
        shown=_shown(job),
    )
    return make_response(body, status)


def _desk_page(
    review: Review,
    rater: str,
    *,
    part: bool = False,
    said: dict[str, Any] | None = None,
    trouble: MienError | None = None,
) -> Response:
    db = services().db
    again = _again(review, rater)
    waiting = [] if again else faces_page(db, review, rater, limit=AHEAD).items
    face = again or (waiting[0] if waiting else None)
    last = faces_page(db, review, rater, state="answered", limit=1).items
    mine = next((r for r in review.raters if r["rater"] == rater), None)
    facts: dict[str, Any] = {
        "review": review,
        "job": review.job,
        "rater": rater,
        "face": face,
        "is_again": bool(again),
        "ahead": [item["image_id"] for item in waiting[1:]],
        "next_faces": waiting[1:],
        "last": (said or (last[0] if last else None)) if not again else None,
        "answers": mine["answers"] if mine else 0,
        "trouble": trouble,
        "shown": _shown(review.job),
        "box": boxes_of([_boxed(face)], face["image_width"], face["image_height"]) if face else [],
    }
    return make_response(render_template("_desk.html" if part else "review_desk.html", **facts))


def _again(review: Review, rater: str) -> dict[str, Any] | None:
    """The face that ``again`` names, as IMAGE.NUMBER, where this rater has rated it."""
    image, dot, number = request.args.get("again", "").partition(".")
    if request.method != "GET" or not dot or not (image.isdecimal() and number.isdecimal()):
        return None
    try:
        return answered_face(services().db, review, Answer(review.id, int(image), int(number), rater, None))
    except NotFoundError:
        return None


def _boxed(face: dict[str, Any]) -> dict[str, Any]:
    """The face for the overlay, without what the model says."""
    return {**face, "emotion": "", "confidence": 0.0}


def _shown(job: Job) -> MienError | None:
    """Why the photographs cannot be shown just now; None where they can."""
    try:
        check_may_be_shown(job)
    except MienError as error:
        return error
    return None


def _size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SIZE:
        raise InvalidRequestError(f"Draw from 1 to {MAX_SIZE:,} faces.", field="size")
    return int(text)


def _number(name: str) -> int:
    text = request.form.get(name, "")
    if not text.isdecimal() or len(text) > 15:
        raise InvalidRequestError(f"`{name}`: a number is missing.", field=name)
    return int(text)


def _job(job_id: str) -> Job:
    return get_job(services().db, caller().owner, job_id)


def _review(review_id: str) -> Review:
    return get_review(services().db, caller().owner, review_id)


def _to_desk(review: Review, rater: str) -> Response:
    return cast(Response, redirect(url_for("review_pages.desk", review_id=review.public_id, rater=rater), 303))
