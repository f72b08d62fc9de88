"""Two jobs over the same images, compared."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from pydantic import Field

from mien import wire_compare as wire
from mien.compare import compare_jobs, differences
from mien.jobs import Job, get_job
from mien.results import MAX_LIMIT
from web.api import as_json
from web.auth import caller
from web.openapi import SECURITY, json_answer, problems
from web.schemas import Cursor, JobPath, NoQuery, Query
from web.services import services

comparisons = APIBlueprint(
    "comparisons",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "comparisons", "description": "Two models on the same images."}],
    abp_security=SECURITY,
)


class PairPath(JobPath):
    """Two jobs in an address: A, then B."""

    other_id: str = Field(description="The id of the other job.", max_length=64)


class DifferencesQuery(Query):
    """Which part of the differences."""

    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Images on a page.")


@comparisons.get(
    "/jobs/<job_id>/compare/<other_id>",
    operation_id="compare_jobs",
    responses={200: json_answer(wire.Comparison, "The two jobs in numbers."), **problems(404, 409, 422)},
)
def compare(path: PairPath, query: NoQuery) -> Response:
    """Compare two jobs that have ended: agreement, confusion, and who is right where people have checked.

    Images are matched by path and content, faces by their boxes. It reads every row of both jobs.
    """
    return as_json(wire.Comparison.model_validate(compare_jobs(services().db, *_jobs(path))))


@comparisons.get(
    "/jobs/<job_id>/compare/<other_id>/differences",
    operation_id="list_differences",
    responses={200: json_answer(wire.DifferencePage, "A page of images that differ."), **problems(404, 409)},
)
def differing(path: PairPath, query: DifferencesQuery) -> Response:
    """Read the images on which two jobs differ, in path order.

    A page looks at 20,000 images at most: it may hold few, or none, while `has_more` is true.
    """
    page = differences(services().db, *_jobs(path), after=query.after, limit=query.limit)
    found = {"items": page.items, "next": page.next, "has_more": page.has_more}
    return as_json(wire.DifferencePage.model_validate(found))


def _jobs(path: PairPath) -> tuple[Job, Job]:
    reach = caller().reach
    return get_job(services().db, reach, path.job_id), get_job(services().db, reach, path.other_id)
