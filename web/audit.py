"""The audit log: what each caller did, written down behind every request; and the route by which admins read it.

What happens once is written at once: submitting, exporting, changing, deleting, signing in. What is done over and over
(reading and polling, uploading, reviewing, single images) is written once an hour per caller and job, from a thread of
its own, so that no reader waits for it. Such an entry of the last second may be lost when the front end is killed.
"""

from __future__ import annotations

import datetime as dt
import re

from flask import Flask, Response, g, request
from flask_openapi.blueprint import APIBlueprint
from pydantic import AwareDatetime, Field

from mien import wire
from mien.audit import Act, AuditFilter, list_audit
from mien.results import MAX_LIMIT
from web.api import as_json
from web.auth import Caller, require_scope
from web.openapi import SECURITY, json_answer, problems
from web.schemas import Cursor, Query
from web.security import SAFE_METHODS
from web.services import services
from web.trail import AuditTrail

NOTHING_OF_A_JOB = frozenset(
    {
        "health.healthz", "health.readyz", "metrics.metrics", "openapi", "static", "audit.read_audit",
        "models.list_models", "models.get_model", "models.workers", "pages.models", "pages.system",
        "deletions.receipts", "deletions.receipt_status", "pages.sign_in", "pages.sign_out",
    }
)  # fmt: skip
"""Readings that show no result: they are not written down."""
SUBMITS = frozenset({"api.submit_job", "api.rerun", "uploads.submit", "pages.submit"})
UPLOADS = frozenset({"uploads.upload", "uploads.upload_one"})
PREDICTS = frozenset({"predictions.predict_image"})
_MADE = re.compile(r"/(jobs|receipts)/([0-9a-f]{8,32})(?:[/?#]|$)")

audits = APIBlueprint(
    "audit",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "system", "description": "Models, workers, health."}],
    abp_security=SECURITY,
)


class AuditQuery(Query):
    """Which entries."""

    owner: str | None = Field(None, max_length=80, description="Only what this owner did.")
    action: wire.AuditAction | None = Field(None, description="Only this.")
    job: str | None = Field(None, max_length=64, description="Only what was done with this job.")
    since: AwareDatetime | None = Field(None, description="Only from this time on.")
    until: AwareDatetime | None = Field(None, description="Only before this time.")
    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Entries on a page.")


@audits.get(
    "/audit",
    operation_id="read_audit",
    responses={200: json_answer(wire.AuditPage, "A page of entries, newest first."), **problems(403)},
)
def read_audit(query: AuditQuery) -> Response:
    """Read who submitted, read, exported, changed and deleted what, of all owners (scope `admin`).

    Ids and kinds, no file names. Reading, uploading, reviewing and single images stand there once an hour per key and
    job.
    """
    require_scope("admin")
    among = AuditFilter(query.owner, query.action, query.job, query.since, query.until)
    page = list_audit(services().db, among=among, after=query.after, limit=query.limit)
    found = {"items": [vars(item) for item in page.items], "next": page.next, "has_more": page.has_more}
    return as_json(wire.AuditPage.model_validate(found))


def install(app: Flask) -> None:
    """Write down what every caller of ``app`` does."""

    @app.after_request
    def _write(answer: Response) -> Response:
        who: Caller | None = g.get("signed_in") or g.get("caller")
        if answer.status_code < 400 and request.endpoint is not None and who is not None:
            _note(services().trail, who, answer)
        return answer


def _note(trail: AuditTrail, who: Caller, answer: Response) -> None:
    endpoint = request.endpoint or ""
    blueprint, _, name = endpoint.rpartition(".")
    values = request.view_args or {}
    job = values.get("job_id")
    detail: str | None = name
    receipt = None
    if endpoint in NOTHING_OF_A_JOB or request.method == "OPTIONS":
        return
    if request.method in SAFE_METHODS:
        is_export = blueprint == "exports" or endpoint in ("reviews.csv", "reviews.jsonl")
        action = "exported" if is_export else "read"
        detail = name if action == "exported" or job is None else None
        repeated = action == "read" or "after" in request.args
    else:
        for kind, made in _MADE.findall(answer.headers.get("Location", "")):
            job, receipt = (made, receipt) if kind == "jobs" else (job, made)
        action, repeated = _action(endpoint, blueprint, receipt)
    when = dt.datetime.now(dt.UTC) if repeated else None
    act = Act(who.owner, action, key_id=who.key_id, job=_short(job), detail=detail, receipt=_short(receipt), at=when)
    if repeated:
        trail.once_an_hour(act)
    else:
        trail.now(act)


def _action(endpoint: str, blueprint: str, receipt: str | None) -> tuple[str, bool]:
    """What a changing request did, and whether it is one that is done over and over."""
    if "signed_in" in g:
        return "signed_in", False
    if endpoint in UPLOADS:
        return "uploaded", True
    if endpoint in PREDICTS:
        return "predicted", True
    if blueprint.startswith("review"):
        return "reviewed", True
    if receipt is not None or endpoint == "pages.delete":
        return "deleted", False
    return ("submitted" if endpoint in SUBMITS else "changed"), False


def _short(public_id: object) -> str | None:
    return public_id[:32] if isinstance(public_id, str) else None
