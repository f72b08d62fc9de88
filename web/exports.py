"""Exports: CSV, JSON Lines and Parquet in path order, streamed page by page, never cut short in silence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import chain

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from mien.database import Database
from mien.errors import ConflictError, NotFoundError
from mien.export import Part, csv_lines, errors_csv_lines, gzipped, images_csv_lines, jsonl_lines, part_of
from mien.faults import fault_point
from mien.jobs import Job, get_job
from mien.parquet import parquet_pieces
from web.auth import caller
from web.openapi import SECURITY, file_answer, problems
from web.schemas import ExportQuery, JobPath, TableQuery
from web.services import services

log = logging.getLogger(__name__)

CSV = "text/csv"
JSON_LINES = "application/jsonl"
PARQUET = "application/vnd.apache.parquet"
GZIP = "application/gzip"
FILE_LEVEL = 6
WIRE_LEVEL = 1
"""Compression on the way costs the server more than it saves unless it is light."""

exports = APIBlueprint(
    "exports",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "exports", "description": "Results as files, in path order, also while the job runs."}],
    abp_security=SECURITY,
)


class ExportBrokenError(Exception):
    """The job changed under an export: the connection is cut, so that nobody takes the part for the whole."""


@exports.get(
    "/jobs/<job_id>/results.csv",
    operation_id="results_csv",
    responses={200: file_answer("One row per face, one for an image without any.", CSV), **problems(404, 409)},
)
def results_csv(path: JobPath, query: TableQuery) -> Response:
    """Download one row per face."""
    return _results_csv(path, query, "results.csv")


@exports.get(
    "/jobs/<job_id>/results.csv.gz",
    operation_id="results_csv_gz",
    responses={200: file_answer("One row per face, one for an image without any.", GZIP), **problems(404, 409)},
)
def results_csv_gz(path: JobPath, query: TableQuery) -> Response:
    """Download one row per face, as a gzip file."""
    return _results_csv(path, query, "results.csv.gz")


@exports.get(
    "/jobs/<job_id>/results.jsonl",
    operation_id="results_jsonl",
    responses={200: file_answer("One JSON object per image and line.", JSON_LINES), **problems(404, 409)},
)
def results_jsonl(path: JobPath, query: ExportQuery) -> Response:
    """Download one JSON object per image."""
    return _results_jsonl(path, query, "results.jsonl")


@exports.get(
    "/jobs/<job_id>/results.jsonl.gz",
    operation_id="results_jsonl_gz",
    responses={200: file_answer("One JSON object per image and line.", GZIP), **problems(404, 409)},
)
def results_jsonl_gz(path: JobPath, query: ExportQuery) -> Response:
    """Download one JSON object per image, as a gzip file."""
    return _results_jsonl(path, query, "results.jsonl.gz")


@exports.get(
    "/jobs/<job_id>/results.parquet",
    operation_id="results_parquet",
    responses={
        200: file_answer("The rows of results.csv; a part is a file of its own.", PARQUET),
        **problems(404, 409),
    },
)
def results_parquet(path: JobPath, query: ExportQuery) -> Response:
    """Download one row per face as Parquet, with the provenance under `mien` in the file's metadata."""
    job, part = _asked(path, query)
    pieces = parquet_pieces(services().db, job, columns=query.columns, part=part)
    return streamed(job, part, pieces, PARQUET, "results.parquet")


@exports.get(
    "/jobs/<job_id>/errors.csv",
    operation_id="errors_csv",
    responses={200: file_answer("One row per failed image.", CSV), **problems(404, 409)},
)
def errors_csv(path: JobPath, query: TableQuery) -> Response:
    """Download the images that failed, with the reason of each."""
    job, part = _asked(path, query, outcome="failed")
    lines = errors_csv_lines(
        services().db, job, spreadsheet=query.spreadsheet, columns=query.columns, part=part
    )  # fmt: skip
    return streamed(job, part, lines, CSV, "errors.csv")


@exports.get(
    "/jobs/<job_id>/images.csv",
    operation_id="images_csv",
    responses={200: file_answer("One row per image.", CSV), **problems(404, 409)},
)
def images_csv(path: JobPath, query: TableQuery) -> Response:
    """Download one row per image: its outcome, its faces, the emotion of the largest."""
    job, part = _asked(path, query)
    lines = images_csv_lines(
        services().db, job, spreadsheet=query.spreadsheet, columns=query.columns, part=part
    )  # fmt: skip
    return streamed(job, part, lines, CSV, "images.csv")


def _results_csv(path: JobPath, query: TableQuery, name: str) -> Response:
    job, part = _asked(path, query)
    lines = csv_lines(services().db, job, spreadsheet=query.spreadsheet, columns=query.columns, part=part)
    return streamed(job, part, lines, CSV, name)


def _results_jsonl(path: JobPath, query: ExportQuery, name: str) -> Response:
    job, part = _asked(path, query)
    return streamed(job, part, jsonl_lines(services().db, job, columns=query.columns, part=part), JSON_LINES, name)


def _asked(path: JobPath, query: ExportQuery, outcome: str | None = None) -> tuple[Job, Part]:
    job = get_job(services().db, caller().reach, path.job_id)
    if job.status == "deleting":
        raise ConflictError("The job is being deleted; there is nothing to export any more.", code="job_deleting")
    return job, part_of(services().db, job, after=query.after, limit=query.limit, outcome=outcome)


def streamed(job: Job, part: Part, pieces: Iterator[bytes], kind: str, name: str) -> Response:
    """An export of the job as the answer, cut off if the job changes under it."""
    first = next(pieces, b"")  # read before the answer begins: an error now is still a proper problem
    guarded = _guarded(services().db, job, chain((first,), pieces), pieces)
    is_file = name.endswith(".gz")
    on_the_way = not is_file and kind != PARQUET and request.accept_encodings["gzip"] > 0
    if is_file or on_the_way:
        guarded = gzipped(guarded, FILE_LEVEL if is_file else WIRE_LEVEL)
    text = "" if is_file or kind == PARQUET else "; charset=utf-8"
    answer = Response(guarded, content_type=f"{GZIP if is_file else kind}{text}")
    if on_the_way:
        answer.content_encoding = "gzip"
    if kind != PARQUET and not is_file:
        answer.vary.add("Accept-Encoding")
    answer.headers["Content-Disposition"] = f'attachment; filename="mien-{job.public_id}-{name}"'
    answer.headers["Mien-Complete"] = "true" if job.complete else "false"
    if part.next is not None:
        answer.headers["Mien-Next"] = part.next
    return answer


def _guarded(db: Database, job: Job, pieces: Iterator[bytes], source: Iterator[bytes]) -> Iterator[bytes]:
    """``pieces``, then a look whether the job is still the one whose export was promised.

    Raises:
        ExportBrokenError: it was retried or deleted meanwhile; the server then cuts the connection.
    """
    close: Callable[[], None] | None = getattr(source, "close", None)
    try:
        for piece in pieces:
            yield piece
            fault_point("exporting")
    finally:
        if close is not None:  # a client that left: whoever writes ahead for it ends
            close()
    try:
        now = get_job(db, job.owner, job.public_id)
    except NotFoundError:
        now = None
    if now is None or now.status == "deleting" or (job.complete and now.counts != job.counts):
        log.warning("An export of job %s was cut off: the job was retried or deleted meanwhile.", job.public_id)
        raise ExportBrokenError(job.public_id)
