"""The installed models, and the workers that serve them."""

from __future__ import annotations

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from mien import wire_system
from mien.errors import ConflictError, ModelError, NotFoundError
from mien.heartbeat import live_workers, set_wanted
from mien.models import DEFAULT
from web import answers
from web.api import as_json
from web.auth import require_scope
from web.json_body import require_json
from web.openapi import SECURITY, json_answer, problems
from web.schemas import ModelChoice, ModelPath, NoQuery, WorkerPath, WorkerState
from web.services import services

TAG = {"name": "system", "description": "Models, workers, health."}

models = APIBlueprint("models", __name__, url_prefix="/api/v1", abp_tags=[TAG], abp_security=SECURITY)


@models.before_request
def _read_body() -> None:
    if request.endpoint in ("models.choose_default", "models.set_worker_state"):
        require_json()


@models.get(
    "/models",
    operation_id="list_models",
    responses={200: json_answer(wire_system.ModelList, "The installed models."), **problems(422)},
)
def list_models(query: NoQuery) -> Response:
    """List the installed models."""
    store = services().store
    chosen = store.get(services().settings.model)
    return as_json(wire_system.ModelList(items=[answers.model_info(model, chosen) for model in store.list()]))


@models.get(
    "/models/<name>",
    operation_id="get_model",
    responses={200: json_answer(wire_system.ModelCard, "The model with its card."), **problems(404, 422)},
)
def get_model(path: ModelPath, query: NoQuery) -> Response:
    """Read a model: its labels, its input, its card, and which live workers can serve it."""
    store = services().store
    try:
        model = store.get(path.name)
    except ModelError as error:
        if error.code != "unknown_model":
            raise
        raise NotFoundError(error.detail, code="unknown_model") from None
    serving = [info.name for info in live_workers(services().db) if model.revision in info.models]
    return as_json(answers.model_card(model, store.get(services().settings.model), serving))


@models.put(
    "/models/default",
    operation_id="choose_default_model",
    responses={
        200: json_answer(wire_system.ModelInfo, "The default model from now on."),
        **problems(403, 409, 413, 415, 422),
    },
)
def choose_default(body: ModelChoice, query: NoQuery) -> Response:
    """Choose the model of jobs that name none (scope admin); `default` goes back to the one that came with Mien."""
    require_scope("admin")
    if services().settings.model != DEFAULT:
        raise ConflictError(
            f"The default model of this Mien is set to {services().settings.model!r} by MIEN_MODEL; unset that first.",
            code="default_model_set",
            field="model",
        )
    model = services().store.set_default(body.model)
    return as_json(answers.model_info(model, services().store.get(services().settings.model)))


@models.get(
    "/workers",
    operation_id="list_workers",
    responses={200: json_answer(wire_system.WorkerList, "The live workers."), **problems()},
)
def workers(query: NoQuery) -> Response:
    """List the workers that live, with what each can do."""
    return as_json(wire_system.WorkerList(items=[answers.worker(info) for info in live_workers(services().db)]))


@models.put(
    "/workers/<worker_name>/state",
    operation_id="set_worker_state",
    responses={
        200: json_answer(wire_system.Worker, "The worker; it hears of it within seconds."),
        **problems(403, 404, 413, 415),
    },
)
def set_worker_state(path: WorkerPath, body: WorkerState, query: NoQuery) -> Response:
    """Pause, drain or resume a worker (scope admin).

    `paused`: it hands back what it holds, uncharged, and waits. `drained`: it finishes what it holds, takes no more,
    and can then be stopped without loss of time. `active`: it works again.
    """
    require_scope("admin")
    return as_json(answers.worker(set_wanted(services().db, path.worker_name, body.state)))
