"""Exports: CSV and JSON Lines in path order, streamed page by page, never cut short in silence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from mien.database import Database
from mien.errors import NotFoundError
from mien.export import csv_lines, errors_csv_lines, images_csv_lines, jsonl_lines
from mien.jobs import Job, get_job
from web.auth import caller
from web.openapi import SECURITY, problems, text_answer
from web.schemas import ExportQuery, JobPath, NoQuery
from web.services import services

log = logging.getLogger(__name__)

CSV = "text/csv"
JSON_LINES = "application/jsonl"

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
    responses={200: text_answer(CSV, "One row per face, one for an image without any."), **problems(404)},
)
def results_csv(path: JobPath, query: ExportQuery) -> Response:
    """Download one row per face."""
    job = _job(path)
    return _streamed(job, csv_lines(services().db, job, spreadsheet=query.spreadsheet), CSV, "results.csv")


@exports.get(
    "/jobs/<job_id>/results.jsonl",
    operation_id="results_jsonl",
    responses={200: text_answer(JSON_LINES, "One JSON object per image and line."), **problems(404)},
)
def results_jsonl(path: JobPath, query: NoQuery) -> Response:
    """Download one JSON object per image."""
    job = _job(path)
    return _streamed(job, jsonl_lines(services().db, job), JSON_LINES, "results.jsonl")


@exports.get(
    "/jobs/<job_id>/errors.csv",
    operation_id="errors_csv",
    responses={200: text_answer(CSV, "One row per failed image."), **problems(404)},
)
def errors_csv(path: JobPath, query: ExportQuery) -> Response:
    """Download the images that failed, with the reason of each."""
    job = _job(path)
    return _streamed(job, errors_csv_lines(services().db, job, spreadsheet=query.spreadsheet), CSV, "errors.csv")


@exports.get(
    "/jobs/<job_id>/images.csv",
    operation_id="images_csv",
    responses={200: text_answer(CSV, "One row per image."), **problems(404)},
)
def images_csv(path: JobPath, query: ExportQuery) -> Response:
    """Download one row per image: its outcome, its faces, the emotion of the largest."""
    job = _job(path)
    return _streamed(job, images_csv_lines(services().db, job, spreadsheet=query.spreadsheet), CSV, "images.csv")


def _job(path: JobPath) -> Job:
    return get_job(services().db, caller().owner, path.job_id)


def _streamed(job: Job, lines: Iterator[bytes], kind: str, name: str) -> Response:
    first = next(lines, b"")  # read before the answer begins: an error now is still a proper problem
    answer = Response(_guarded(services().db, job, chain((first,), lines)), content_type=f"{kind}; charset=utf-8")
    answer.headers["Content-Disposition"] = f'attachment; filename="mien-{job.public_id}-{name}"'
    answer.headers["Mien-Complete"] = "true" if job.complete else "false"
    return answer


def _guarded(db: Database, job: Job, lines: Iterator[bytes]) -> Iterator[bytes]:
    """``lines``, then a look whether the job is still the one whose export was promised.

    Raises:
        ExportBrokenError: it was retried or deleted meanwhile; the server then cuts the connection.
    """
    yield from lines
    try:
        now = get_job(db, job.owner, job.public_id)
    except NotFoundError:
        now = None
    if now is None or now.status == "deleting" or (job.complete and now.counts != job.counts):
        log.warning("An export of job %s was cut off: the job was retried or deleted meanwhile.", job.public_id)
        raise ExportBrokenError(job.public_id)
