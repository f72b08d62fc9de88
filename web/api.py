"""The API: submit, watch, change and read jobs. Every view is a few lines over ``mien``."""

from __future__ import annotations

from flask import Response, make_response, request, url_for
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel

from mien import wire, wire_results
from mien.aggregates import summary
from mien.faults import fault_point
from mien.jobs import Job, get_job, list_jobs, request_cancel, request_retry
from mien.provenance import bibtex, methods_sentence, provenance
from mien.queue import EXPAND, PURGE
from mien.rerun import RerunRequest, rerun_job
from mien.results import results_page
from mien.submission import JobRequest, create_job
from web import answers
from web.auth import caller, owner_asked
from web.json_body import require_json
from web.long_poll import etag_of, wait_for_news
from web.openapi import ETAG, FORM, LOCATION, RETRY_AFTER, SECURITY, SUBMIT_BODY, json_answer, problems
from web.schemas import (
    JobHeader,
    JobPath,
    JobQuery,
    JobsQuery,
    NoQuery,
    ResultsQuery,
    SubmitHeader,
    SummaryQuery,
)
from web.services import services

RETRY_AFTER_S = 2

api = APIBlueprint(
    "api",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "jobs", "description": "From a folder of photographs to one row per face."}],
    abp_security=SECURITY,
)


@api.before_request
def _read_body() -> None:
    forms = request.endpoint == "api.submit_job" and request.mimetype == FORM  # web.uploads takes them
    if request.endpoint in ("api.submit_job", "api.rerun") and not forms:
        require_json()


@api.post(
    "/jobs",
    operation_id="submit_job",
    responses={
        202: json_answer(wire.JobStatus, "Accepted; the work goes on behind.", LOCATION | RETRY_AFTER | ETAG),
        **problems(403, 404, 413, 415, 422, 507),
    },
    request_body=SUBMIT_BODY,
)
def submit_job(body: JobRequest, header: SubmitHeader, query: NoQuery) -> Response:
    """Submit a folder on the server, make a draft for uploads, or send up to 1,000 images with the job.

    Answers as soon as the job is written down. One Idempotency-Key makes one job, however often it is repeated. As
    `multipart/form-data` the first part is the job in JSON; each other part is an image, and the job is made, filled
    and submitted in one step, or not at all.
    """
    parts, who = services(), caller()
    job, created = create_job(
        parts.db,
        parts.settings,
        parts.store,
        who.owner,
        body,
        idempotency_key=header.idempotency_key,
        any_folder=who.any_folder,
    )
    return made(job, created)


@api.get(
    "/jobs",
    operation_id="list_jobs",
    responses={200: json_answer(wire.JobPage, "A page of jobs, newest first."), **problems(403)},
)
def jobs(query: JobsQuery) -> Response:
    """List your jobs, newest first.

    `metadata.KEY=VALUE` keeps those whose metadata holds that plain value under that key.
    """
    page = list_jobs(services().db, owner_asked(query.owner), after=query.after, limit=query.limit, among=query.among)
    items = [answers.job_status(job) for job in page.items]
    return as_json(wire.JobPage(items=items, next=page.next, has_more=page.has_more))


@api.get(
    "/jobs/<job_id>",
    operation_id="get_job",
    responses={
        200: json_answer(wire.JobStatus, "The job now. `Retry-After` stands there while it runs.", ETAG | RETRY_AFTER),
        304: {"description": "Nothing has changed since the ETag in If-None-Match."},
        **problems(404),
    },
)
def job_status(path: JobPath, query: JobQuery, header: JobHeader) -> Response:
    """Read a job: its state, its counts, how fast it goes and when it will be done."""
    job = wait_for_news(lambda: _job(path.job_id), query.wait)
    tag = etag_of(job)
    if request.if_none_match.contains_weak(tag):
        answer = make_response("", 304)
        answer.set_etag(tag, weak=True)
        return answer
    return _with_state(as_json(answers.job_status(job)), job)


@api.get(
    "/jobs/<job_id>/results",
    operation_id="list_results",
    responses={200: json_answer(wire_results.ResultPage, "A page of images with their faces."), **problems(404)},
)
def results(path: JobPath, query: ResultsQuery) -> Response:
    """Read results page by page, in the order in which they are written.

    `next` is always given: ask again with it to follow a running job. A retried image comes again, later; its later
    row replaces the earlier.
    """
    job = _job(path.job_id)
    page = results_page(services().db, job, after=query.after, limit=query.limit, wanted=query.wanted)
    return as_json(
        wire_results.ResultPage.model_validate({"items": page.items, "next": page.next, "has_more": page.has_more})
    )


@api.get(
    "/jobs/<job_id>/summary",
    operation_id="get_summary",
    responses={200: json_answer(wire_results.Summary, "The job in numbers."), **problems(404)},
)
def job_summary(path: JobPath, query: SummaryQuery) -> Response:
    """Count faces per label, images per outcome and error, and confidence in 20 bins; of the job, or of one folder."""
    found = summary(services().db, _job(path.job_id), folder=query.folder)
    return as_json(wire_results.Summary.model_validate(found))


@api.get(
    "/jobs/<job_id>/provenance",
    operation_id="get_provenance",
    responses={
        200: {
            "description": "Version, model, detector, options, counts and times.",
            "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
        },
        **problems(404),
    },
)
def job_provenance(path: JobPath, query: NoQuery) -> Response:
    """Read how the results were made."""
    return make_response(provenance(_job(path.job_id)))


@api.get(
    "/jobs/<job_id>/cite",
    operation_id="cite_job",
    responses={200: json_answer(wire_results.Citation, "A methods sentence and a BibTeX entry."), **problems(404)},
)
def cite(path: JobPath, query: NoQuery) -> Response:
    """Cite the results in a paper."""
    job = _job(path.job_id)
    return as_json(wire_results.Citation(methods=methods_sentence(job), bibtex=bibtex(job)))


@api.post(
    "/jobs/<job_id>/cancel",
    operation_id="cancel_job",
    responses={
        202: json_answer(wire.JobStatus, "The job ends soon; what is classified stays.", LOCATION | RETRY_AFTER | ETAG),
        **problems(403, 404, 409),
    },
)
def cancel(path: JobPath, query: NoQuery) -> Response:
    """End a job early. Images without an outcome become `cancelled`."""
    job = request_cancel(services().db, caller().reach, path.job_id)
    services().doorbell.ring(PURGE)
    return accepted(job)


@api.post(
    "/jobs/<job_id>/retry",
    operation_id="retry_job",
    responses={
        202: json_answer(wire.JobStatus, "The failed images are tried again.", LOCATION | RETRY_AFTER | ETAG),
        **problems(403, 404, 409),
    },
)
def retry(path: JobPath, query: NoQuery) -> Response:
    """Try the failed images of a job again, and only those."""
    job = request_retry(services().db, caller().reach, path.job_id)
    services().doorbell.ring(EXPAND)
    return accepted(job)


@api.post(
    "/jobs/<job_id>/rerun",
    operation_id="rerun_job",
    responses={
        202: json_answer(wire.JobStatus, "A new job, accepted.", LOCATION | RETRY_AFTER | ETAG),
        **problems(403, 404, 409, 413, 415, 422, 507),
    },
)
def rerun(path: JobPath, body: RerunRequest, header: SubmitHeader, query: NoQuery) -> Response:
    """Run a job again as a new one, with another model or other options; the first stays as it is.

    What is left out is as it was, the model's revision too. A folder is walked again; uploads are taken over.
    """
    parts, who = services(), caller()
    job, created = rerun_job(
        parts.db,
        parts.settings,
        parts.store,
        _job(path.job_id),
        body,
        idempotency_key=header.idempotency_key,
        any_folder=who.any_folder,
    )
    return made(job, created)


def made(job: Job, created: bool) -> Response:
    """The answer to whoever asked for a new job: ``created``, or an idempotency key that stood for it already."""
    if created:
        fault_point("after_submit")
        services().doorbell.ring(EXPAND)
    answer = accepted(job)
    if not created:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


def as_json(model: BaseModel, status: int = 200) -> Response:
    """A model as the answer."""
    answer = make_response(model.model_dump_json(), status)
    answer.content_type = "application/json"
    return answer


def _job(job_id: str) -> Job:
    return get_job(services().db, caller().reach, job_id)


def accepted(job: Job) -> Response:
    """The job as a 202, with its address."""
    answer = _with_state(as_json(answers.job_status(job), 202), job)
    answer.headers["Location"] = url_for("api.job_status", job_id=job.public_id)
    answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


def _with_state(answer: Response, job: Job) -> Response:
    answer.set_etag(etag_of(job), weak=True)
    if not job.is_final:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer
