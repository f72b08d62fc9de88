"""Questions over many results: across jobs, by folder, in numbers."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from mien import wire_results
from mien.aggregates import folders, summary_over
from mien.jobs import get_job
from mien.results import results_across
from web.api import as_json
from web.auth import caller, owner_asked
from web.openapi import SECURITY, json_answer, problems
from web.schemas import AmongJobs, FoldersQuery, JobPath, ResultsAcrossQuery
from web.services import services

queries = APIBlueprint(
    "queries",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "results", "description": "Results across jobs, and results in numbers."}],
    abp_security=SECURITY,
)


@queries.get(
    "/results",
    operation_id="list_results_across",
    responses={200: json_answer(wire_results.ResultsAcrossPage, "A page of images with their faces and their job."),
               **problems(403)},
)  # fmt: skip
def results(query: ResultsAcrossQuery) -> Response:
    """Read results of all your jobs, or of those that the filters choose.

    By job, oldest first, then in the order in which they were written: a stable order of pages. `metadata.KEY=VALUE`
    chooses jobs by a plain value of their metadata.
    """
    page = results_across(
        services().db,
        owner_asked(query.owner),
        among=query.among,
        after=query.after,
        limit=query.limit,
        wanted=query.wanted,
    )
    found = {"items": page.items, "next": page.next, "has_more": page.has_more}
    return as_json(wire_results.ResultsAcrossPage.model_validate(found))


@queries.get(
    "/summary",
    operation_id="get_overall_summary",
    responses={200: json_answer(wire_results.OverallSummary, "The jobs in numbers."), **problems(403)},
)
def summary(query: AmongJobs) -> Response:
    """Count faces per label, images per outcome and error, and confidence, over all your jobs or those chosen.

    `metadata.KEY=VALUE` chooses jobs by a plain value of their metadata.
    """
    return as_json(
        wire_results.OverallSummary.model_validate(summary_over(services().db, owner_asked(query.owner), query.among))
    )


@queries.get(
    "/jobs/<job_id>/folders",
    operation_id="list_folders",
    responses={
        200: json_answer(wire_results.FolderPage, "A page of folders, each with all below it."),
        **problems(404),
    },
)
def job_folders(path: JobPath, query: FoldersQuery) -> Response:
    """Sum up a job by the folders directly in a folder; images that lie in it itself stand under its own name."""
    job = get_job(services().db, caller().reach, path.job_id)
    items, has_more = folders(services().db, job, folder=query.folder, after=query.after, limit=query.limit)
    last = items[-1]["folder"] if items and has_more else None
    return as_json(wire_results.FolderPage.model_validate({"items": items, "next": last, "has_more": has_more}))
