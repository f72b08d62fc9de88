"""The system in numbers: workers, queues, throughput, disk, and what went wrong lately."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from mien import __version__
from mien.heartbeat import live_workers
from mien.system_state import disk, doorbells, recent_trouble, throughput, work_waiting
from mien.wire_system import SystemState
from web import answers
from web.api import as_json
from web.auth import caller
from web.models import TAG
from web.openapi import SECURITY, json_answer, problems
from web.schemas import NoQuery
from web.services import services

system = APIBlueprint("system", __name__, url_prefix="/api/v1", abp_tags=[TAG], abp_security=SECURITY)


@system.get(
    "/system",
    operation_id="get_system",
    responses={200: json_answer(SystemState, "The system as it is now."), **problems()},
)
def state(query: NoQuery) -> Response:
    """Read how Mien is: its workers, the work that waits, throughput over the last hour, disk, recent troubles.

    Work and throughput are those of all owners, in numbers alone; troubles are those of your jobs.
    """
    return as_json(system_state())


def system_state() -> SystemState:
    """The system as it is now."""
    parts = services()
    return SystemState.model_validate(
        {
            "version": __version__,
            "workers": [answers.worker(info) for info in live_workers(parts.db)],
            "queues": doorbells(parts.doorbell.celery()),
            "work": work_waiting(parts.db),
            "throughput": throughput(parts.db),
            "disk": disk(parts.settings),
            "trouble": recent_trouble(parts.db, caller().owner),
        }
    )
