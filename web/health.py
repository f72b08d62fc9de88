"""Whether the front end lives, and whether Mien can do its work."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from mien import __version__, wire
from mien.errors import MienError, UnavailableError
from mien.heartbeat import live_workers, working
from mien.queue import CONTROL_QUEUE, waiting
from mien.schema_version import is_current
from web.api import as_json
from web.openapi import SECURITY, json_answer, only_problems, problems
from web.problems import respond
from web.schemas import NoQuery
from web.services import Services, services

TAG = {"name": "system", "description": "Models, workers, health."}

health = APIBlueprint("health", __name__, abp_tags=[TAG])


@health.get(
    "/healthz",
    operation_id="healthz",
    responses={200: json_answer(wire.Health, "The front end lives."), **only_problems(400)},
)
def healthz(query: NoQuery) -> Response:
    """Ask whether the front end lives. Needs no key, touches nothing else."""
    return as_json(wire.Health(status="alive", version=__version__))


@health.get(
    "/readyz",
    operation_id="readyz",
    security=SECURITY,
    responses={200: json_answer(wire.Readiness, "Database, broker and a worker answer."), **problems()},
)
def readyz(query: NoQuery) -> Response:
    """Ask whether jobs can be done now: database, broker, and at least one live worker for the default model."""
    parts = services()
    checks = {"database": _database(parts), "broker": _broker(parts), "worker": _worker(parts)}
    missing = [f"{name} ({check.detail})" for name, check in checks.items() if not check.ok]
    if missing:
        return respond(UnavailableError(f"Not ready: {'; '.join(missing)}", code="not_ready"), checks=checks)
    return as_json(wire.Readiness(status="ready", checks=checks))


def _database(parts: Services) -> wire.Check:
    try:
        current = is_current(parts.db)
    except MienError as error:
        return wire.Check(ok=False, detail=error.detail)
    if not current:
        return wire.Check(ok=False, detail="its schema is not of this version: run `mien migrate`")
    return wire.Check(ok=True, detail="answers")


def _broker(parts: Services) -> wire.Check:
    depth = waiting(parts.doorbell.celery(), CONTROL_QUEUE)
    if depth is None:
        return wire.Check(ok=False, detail="does not answer; jobs are accepted and begin when it is back")
    return wire.Check(ok=True, detail="answers")


def _worker(parts: Services) -> wire.Check:
    """At least one live worker that takes jobs of the default model in the default precision."""
    try:
        live = live_workers(parts.db)
        model = parts.store.get(parts.settings.model)
    except MienError as error:
        return wire.Check(ok=False, detail=error.detail)
    if not live:
        return wire.Check(ok=False, detail="none was seen lately; jobs wait until one is started")
    ready = working(live)
    if not ready:
        return wire.Check(ok=False, detail=f"all {len(live)} are paused or drained; jobs wait until one is resumed")
    able = [w for w in ready if model.revision in w.models and parts.settings.precision in w.precisions]
    if not able:
        return wire.Check(
            ok=False,
            detail=f"none of {len(ready)} has the default model {model.name} (revision {model.revision[:12]}) in "
            f"{parts.settings.precision}; install it where they run with `mien models add`",
        )
    return wire.Check(ok=True, detail=f"{len(able)} live")
