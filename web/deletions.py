"""Deleting: a job, single images of it, or a content in all of the caller's jobs. Each is answered by a receipt."""

from __future__ import annotations

from flask import Response, request, url_for
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from mien import wire
from mien.erasure import record_erasures
from mien.queue import PURGE
from mien.receipts import Receipt, get_receipt, list_receipts, request_content, request_delete, request_images
from mien.results import MAX_LIMIT
from web.api import RETRY_AFTER_S, api, as_json
from web.auth import caller
from web.json_body import require_json
from web.openapi import LOCATION, RETRY_AFTER, SECURITY, json_answer, problems
from web.schemas import Cursor, JobPath, NoQuery, Query
from web.services import services
from web.uploads import uploads

MAX_IMAGES = 100

deletions = APIBlueprint(
    "deletions",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "deletions", "description": "Deleting, with receipts that count what is gone."}],
    abp_security=SECURITY,
)
_LOCATION = {"Location": {**LOCATION["Location"], "description": "Address of the receipt."}}
_ACCEPTED = json_answer(wire.Receipt, "Accepted; the receipt counts while it goes.", _LOCATION | RETRY_AFTER)


class ImagesQuery(Query):
    """Which images of a job."""

    path: list[str] = Field(
        min_length=1, max_length=MAX_IMAGES, description="An image's `file`, as results give it; repeat it for more."
    )


class Content(BaseModel):
    """A content, wherever it lies."""

    model_config = ConfigDict(extra="forbid")
    sha256: str = Field(pattern="^[0-9a-fA-F]{64}$", description="SHA-256 of the image file, hexadecimal.")


class ReceiptPath(BaseModel):
    """The receipt in an address."""

    receipt_id: str = Field(description="The receipt's id.", max_length=64)


class ReceiptsQuery(Query):
    """Which receipts."""

    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="Receipts on a page.")


@api.delete("/jobs/<job_id>", operation_id="delete_job", responses={202: _ACCEPTED, **problems(403, 404)})
def delete_job(path: JobPath, query: NoQuery) -> Response:
    """Delete a job and everything of it.

    Its images, faces, uploads, corrections, and with them what later jobs could have copied. Asking again gives the
    same receipt until the job is gone.
    """
    return _accepted(request_delete(services().db, caller().reach, path.job_id))


@uploads.delete("/jobs/<job_id>/images", operation_id="delete_images", responses={202: _ACCEPTED, **problems(403, 404)})
def delete_images(path: JobPath, query: ImagesQuery) -> Response:
    """Delete single images of a job, with their faces, uploads and corrections; the job's counts fall with them.

    All that are named, or none. While the job's folder is still being read the deletion waits.
    """
    return _accepted(request_images(services().db, caller().reach, path.job_id, query.path))


@deletions.post("/deletions", operation_id="delete_content", responses={202: _ACCEPTED, **problems(403, 413, 415)})
def delete_content(body: Content, query: NoQuery) -> Response:
    """Delete every image with this SHA-256 in all of your jobs.

    The receipt is finished when every job that was there at this moment has ended: until then one of them may come
    upon the image.
    """
    return _accepted(request_content(services().db, caller().owner, body.sha256))


@deletions.get(
    "/receipts",
    operation_id="list_receipts",
    responses={200: json_answer(wire.ReceiptPage, "A page of receipts, newest first."), **problems()},
)
def receipts(query: ReceiptsQuery) -> Response:
    """List the receipts of your deletions, newest first, those by a job's own retention too."""
    page = list_receipts(services().db, caller().owner, after=query.after, limit=query.limit)
    items = [_as_answer(receipt) for receipt in page.items]
    return as_json(wire.ReceiptPage(items=items, next=page.next, has_more=page.has_more))


@deletions.get(
    "/receipts/<receipt_id>",
    operation_id="get_receipt",
    responses={
        200: json_answer(wire.Receipt, "What was deleted. `Retry-After` stands there while it goes on.", RETRY_AFTER),
        **problems(404),
    },
)
def receipt_status(path: ReceiptPath, query: NoQuery) -> Response:
    """Read what a deletion has deleted, and whether it is done."""
    return _with_state(get_receipt(services().db, caller().reach, path.receipt_id))


@deletions.before_request
def _read_body() -> None:
    if request.endpoint == "deletions.delete_content":
        require_json()


def _accepted(receipt: Receipt) -> Response:
    record_erasures(services().db, services().settings)  # before anybody is told that it is accepted
    services().doorbell.ring(PURGE)
    answer = _with_state(receipt, 202)
    answer.headers["Location"] = url_for("deletions.receipt_status", receipt_id=receipt.public_id)
    return answer


def _with_state(receipt: Receipt, status: int = 200) -> Response:
    answer = as_json(_as_answer(receipt), status)
    if receipt.finished_at is None:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


def _as_answer(receipt: Receipt) -> wire.Receipt:
    return wire.Receipt.model_validate(
        {
            "id": receipt.public_id,
            "kind": receipt.kind,
            "reason": receipt.reason,
            "job": receipt.job,
            "files": receipt.files,
            "sha256": receipt.sha256,
            "deleted": receipt.counts,
            "requested_at": receipt.requested_at,
            "finished_at": receipt.finished_at,
        }
    )
