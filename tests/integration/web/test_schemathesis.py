"""The OpenAPI document against the front end: generated requests, right and wrong; no fault of the server, and no
answer that the document does not promise."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from mien.database import Database
from mien.keys import create_key
from tests.support.ledger import bad, expanded_job, ok, work_off
from tests.support.web import install_model, make_app, parts_of

schemathesis = pytest.importorskip("schemathesis", reason="generated requests need schemathesis")
hypothesis = pytest.importorskip("hypothesis")
openapi_checks = pytest.importorskip("schemathesis.specs.openapi.checks")

CHECKS = [
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
ORDER = ("get", "put", "patch", "post", "delete")
EXAMPLES = 20
"""Requests per operation: a minute for all is too long, and 20 derived ones have found what 200 did."""


@pytest.fixture
def world(tmp_path: Path) -> tuple[Flask, list[str], dict[str, str]]:
    """A front end whose jobs are a finished one, a running one and a draft; and a key that opens everything."""
    app = make_app(tmp_path, requests_per_minute=0, predict_timeout_s=0.2)
    parts_of(app).is_stopping = lambda: True  # long polls answer at once
    db: Database = parts_of(app).db
    install_model(parts_of(app).settings.models, "other")
    jobs = []
    photos = tmp_path / "photos"
    done = expanded_job(db, photos, 12, owner="default", metadata={"study": "7"})
    work_off(db, lambda image: bad(image) if image.path == b"00003.jpg" else ok(image))
    jobs += [done, expanded_job(db, photos, 12, owner="default")]
    _, secret = create_key(db, "k", scope="admin")
    key = {"Authorization": f"Bearer {secret}"}
    draft = app.test_client().post("/api/v1/jobs", json={"source": {"type": "upload"}}, headers=key)
    return app, [*jobs, draft.json["id"]], key


def test_no_fault_and_no_undocumented_answer(world: tuple[Flask, list[str], dict[str, str]]) -> None:
    app, jobs, key = world
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app, headers=key)
    failures = []
    made = app.test_client().post("/api/v1/webhooks", json={"url": "https://93.184.216.34/"}, headers=key)
    hooks = [made.json["id"]]
    # what ends or deletes jobs comes last: before that there is something to read
    operations = sorted((found.ok() for found in schema.get_all_operations()), key=lambda o: ORDER.index(o.method))
    assert len(operations) > 30
    for operation in operations:
        try:
            ask_many(operation, jobs, key, hooks)
        except Exception as error:
            failures.append(f"{operation.label}: {error}")
    assert not failures, "\n\n".join(failures)


def ask_many(operation: Any, jobs: list[str], key: dict[str, str], hooks: list[str]) -> None:
    """Ask one operation many times, of jobs that are there and of others, and hold each answer against the document.

    503 and 507 are answers like others: no worker runs here. Only 500 is a fault.
    """
    ids = cycle([*jobs, None])

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        chosen = next(ids)
        if chosen is not None and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = chosen
        if chosen is not None and hooks and "webhook_id" in (case.path_parameters or {}):
            case.path_parameters["webhook_id"] = hooks[0]
        answer = case.call(headers=key)
        assert answer.status_code != 500, f"{case.as_curl_command()}: {answer.content[:300]!r}"
        case.validate_response(answer, checks=CHECKS)

    ask()
