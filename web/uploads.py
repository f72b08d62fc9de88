"""Uploads over HTTP: images and archives into a draft, what has arrived, its submission; and all in one request."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from flask import Response, current_app, request
from flask_openapi.blueprint import APIBlueprint
from pydantic import Field, ValidationError

from mien import wire
from mien.errors import ConflictError, InvalidRequestError, TooLargeError
from mien.intake import DraftIntake, FormIntake, Received
from mien.jobs import Job, get_job
from mien.ledger.drafts import list_uploads, submit_draft
from mien.paths import exact_name
from mien.queue import EXPAND
from mien.results import MAX_LIMIT
from mien.submission import JobRequest, create_uploaded_job, prepare, upload_place
from mien.uploads import new_folder
from web.api import accepted, api, as_json
from web.auth import caller
from web.incoming import Body, incoming
from web.json_body import MAX_JSON_BYTES
from web.multipart import Form, Part, bad_form
from web.openapi import (
    ARCHIVE_KINDS,
    ETAG,
    FORM,
    LOCATION,
    RETRY_AFTER,
    SECURITY,
    UPLOAD_BODY,
    json_answer,
    problems,
)
from web.problems import MediaTypeError, on_invalid_request
from web.schemas import Cursor, JobPath, NoQuery, Query, SubmitHeader
from web.services import services

MAX_FORM_FILES = 1000
JOB_PART, ARCHIVE_PART = "job", "archive"

uploads = APIBlueprint(
    "uploads",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "uploads", "description": "Images that are sent to the server."}],
    abp_security=SECURITY,
)


class UploadsQuery(Query):
    """Which page."""

    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(1000, ge=1, le=MAX_LIMIT, description="Files on a page.")


class PutQuery(Query):
    """Which image."""

    path: str = Field(min_length=1, max_length=6000, description="The path of the image, relative to your folder.")


@uploads.post(
    "/jobs/<job_id>/images",
    operation_id="upload_images",
    request_body=UPLOAD_BODY,
    responses={
        200: json_answer(wire.Received, "All of it has arrived."),
        **problems(403, 404, 409, 413, 415, 422, 507),
    },
)
def upload(path: JobPath, query: NoQuery) -> Response:
    """Upload images into a draft, in as many requests as you like, several at once if you like.

    As `multipart/form-data`: up to 1,000 images, each with its path as the filename (or percent-encoded in the part's
    header `Mien-Path`), and parts named `archive`. Or a zip, tar or gzipped tar as the body itself. The same path again
    replaces the image. If the request breaks off or is refused midway, what arrived whole before stays.
    """
    with incoming() as body, _draft(path.job_id) as intake:
        if request.mimetype == FORM:
            _take_form(body, intake)
        elif request.mimetype in ARCHIVE_KINDS:
            intake.take_archive(body)
        else:
            raise MediaTypeError(
                f"Send images as {FORM}, or an archive as one of {', '.join(ARCHIVE_KINDS)}; "
                f"this is {request.mimetype or 'of no kind'}."
            )
        received = intake.finish()
    return as_json(_answer(received))


@uploads.put(
    "/jobs/<job_id>/images",
    operation_id="upload_image",
    request_body={"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    responses={
        200: json_answer(wire.Received, "It has arrived."),
        **problems(403, 404, 409, 413, 422, 507),
    },
)
def upload_one(path: JobPath, query: PutQuery) -> Response:
    """Upload one image into a draft; the body is its bytes. The same path again replaces it."""
    with incoming() as body, _draft(path.job_id) as intake:
        intake.take(_exact_query("path"), body)
        received = intake.finish()
    return as_json(_answer(received))


@uploads.get(
    "/jobs/<job_id>/images",
    operation_id="list_uploads",
    responses={200: json_answer(wire.UploadPage, "A page of what has arrived."), **problems(404, 409)},
)
def arrived(path: JobPath, query: UploadsQuery) -> Response:
    """List what has arrived, in path order: what is missing after an interruption is what has to be sent again."""
    job = _job(path.job_id)
    if job.source_type != "upload":
        raise ConflictError("This job reads a folder on the server; nothing is uploaded into it.", code="not_uploaded")
    page = list_uploads(services().db, job.id, job.public_id, after=query.after, limit=query.limit)
    items = [
        wire.UploadedFile(
            file=exact_name(row.path), bytes=row.bytes, sha256=row.sha256.hex(), received_at=row.received_at
        )
        for row in page.items
    ]
    return as_json(wire.UploadPage(items=items, next=page.next, has_more=page.has_more))


@uploads.post(
    "/jobs/<job_id>/submit",
    operation_id="submit_draft",
    responses={
        202: json_answer(wire.JobStatus, "Accepted; the work goes on behind.", LOCATION | RETRY_AFTER | ETAG),
        **problems(403, 404, 409),
    },
)
def submit(path: JobPath, query: NoQuery) -> Response:
    """Submit a draft: what has arrived is all there is. An upload that is still under way is refused at its end."""
    job = _job(path.job_id)
    submit_draft(services().db, job.id)
    services().doorbell.ring(EXPAND)
    return accepted(_job(path.job_id))


@api.before_request
def _submit_form() -> Response | None:
    """A job and its images in one request; :func:`web.api.submit_job` takes the JSON."""
    if request.endpoint != "api.submit_job" or request.mimetype != FORM:
        return None
    try:
        NoQuery.model_validate(request.args.to_dict())
        key = SubmitHeader.model_validate(dict(request.headers)).idempotency_key
        job, created = _create(key)
    except ValidationError as error:
        return on_invalid_request(error)
    answer = accepted(job)
    if created:
        services().doorbell.ring(EXPAND)
    else:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


def _create(key: str | None) -> tuple[Job, bool]:
    parts = services()
    with incoming() as body, new_folder(parts.settings) as folder:
        form = Form(body, request.mimetype_params.get("boundary")).parts()
        asked = _job_part(next(form, None))
        new = prepare(parts.settings, parts.store, caller().owner, asked, upload_place(folder), key=key)
        with FormIntake(parts.settings, folder.public_id) as intake:
            for number, part in enumerate(form):
                _take_part(part, number, intake)
            files = intake.files()
            if not files:
                raise InvalidRequestError(
                    "The form brings no image: add a part with a filename.", code="no_images_sent"
                )
            job, created = create_uploaded_job(parts.db, new, folder, files)
            if created:
                intake.keep(files)
    return job, created


def _job_part(part: Part | None) -> JobRequest:
    if part is None or part.name != JOB_PART:
        bad_form(f"its first part has to be `{JOB_PART}`, the job in JSON")
    try:
        content = current_app.json.loads(part.text(MAX_JSON_BYTES))
    except ValueError as error:
        raise InvalidRequestError(f"The part `{JOB_PART}` is not valid JSON: {error}.", code="bad_json") from None
    if isinstance(content, dict):
        content.setdefault("source", {"type": "upload"})
    asked = JobRequest.model_validate(content)
    if asked.source.type != "upload":
        raise InvalidRequestError(
            "A job that comes with its images has `upload` as its source, or none.", field="source.type"
        )
    return asked


def _take_form(body: Body, intake: DraftIntake) -> None:
    for number, part in enumerate(Form(body, request.mimetype_params.get("boundary")).parts()):
        if part.name == ARCHIVE_PART:
            intake.take_archive(part)
        else:
            _take_part(part, number, intake)


def _take_part(part: Part, number: int, intake: DraftIntake | FormIntake) -> None:
    if number >= MAX_FORM_FILES:
        raise TooLargeError(
            f"One form may bring {MAX_FORM_FILES:,} images; send the others in further requests.", code="too_many_parts"
        )
    if part.path is None:
        raise InvalidRequestError(
            f"The part `{part.name}` has no filename, so it is no image; fields are not taken here.", field=part.name
        )
    intake.take(part.path, part)


def _exact_query(name: str) -> bytes:
    """A query parameter to the last byte; the framework would replace what is no UTF-8."""
    for pair in request.query_string.split(b"&"):
        key, _, value = pair.partition(b"=")
        if unquote_to_bytes(key.replace(b"+", b" ")) == name.encode():
            return unquote_to_bytes(value.replace(b"+", b" "))
    return b""


def _draft(job_id: str) -> DraftIntake:
    return DraftIntake(services().db, services().settings, _job(job_id))


def _job(job_id: str) -> Job:
    return get_job(services().db, caller().reach, job_id)


def _answer(received: Received) -> wire.Received:
    return wire.Received(
        files=received.files,
        bytes=received.size,
        replaced=received.replaced,
        skipped=dict(received.skipped),
        skipped_files=[wire.Skipped.model_validate({"file": f, "reason": why}) for f, why in received.named_skipped],
        total_files=received.total_files,
        total_bytes=received.total_size,
    )
