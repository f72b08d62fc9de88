"""Webhooks: addresses that are told of the end of jobs, and what was delivered to them."""

from __future__ import annotations

from flask import Response, request, url_for
from flask_openapi.blueprint import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from mien import wire_webhooks as wire
from mien.deliveries import Delivery, list_deliveries, send_again
from mien.results import MAX_LIMIT
from mien.webhooks import (
    Webhook,
    change_webhook,
    create_webhook,
    delete_webhook,
    get_webhook,
    list_webhooks,
    rotate_secret,
)
from web.api import as_json
from web.auth import caller
from web.json_body import require_json
from web.openapi import LIMITS, LOCATION, REQUEST_ID, SECURITY, json_answer, problems
from web.schemas import Cursor, NoQuery, Query
from web.services import services

webhooks = APIBlueprint(
    "webhooks",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "webhooks", "description": "Being told of the end of jobs, as in Standard Webhooks."}],
    abp_security=SECURITY,
)
_ALL: list[wire.Event] = ["job.completed", "job.cancelled", "job.failed"]
_LOCATION = {"Location": {**LOCATION["Location"], "description": "Address of the webhook."}}
_SECRET = Field(
    None,
    max_length=200,
    pattern=r"^whsec_[A-Za-z0-9+/]+={0,2}$",
    description="A secret of your own, `whsec_` and the Base64 of 24 to 64 random bytes; without it one is made.",
)


class WebhookRequest(BaseModel):
    """The body of ``POST /api/v1/webhooks``."""

    model_config = ConfigDict(extra="forbid")
    url: str = Field(min_length=1, max_length=2000, description="An https:// address that takes POST requests.")
    events: list[wire.Event] = Field(_ALL, min_length=1, max_length=10, description="Which ends of jobs it is told of.")
    secret: str | None = _SECRET


class WebhookChange(BaseModel):
    """What is to be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    url: str | None = Field(None, min_length=1, max_length=2000, description="An https:// address.")
    events: list[wire.Event] | None = Field(
        None, min_length=1, max_length=10, description="Which ends of jobs it is told of."
    )
    enabled: bool | None = Field(None, description="Whether it is called; what was held is sent when it is again.")


class NewSecret(BaseModel):
    """A new secret."""

    model_config = ConfigDict(extra="forbid")
    secret: str | None = _SECRET


class WebhookPath(BaseModel):
    """The webhook in an address."""

    webhook_id: str = Field(description="The webhook's id.", max_length=64)


class DeliveryPath(WebhookPath):
    """The delivery in an address."""

    delivery_id: str = Field(description="The delivery's id.", max_length=64)


class DeliveriesQuery(Query):
    """Which deliveries."""

    after: Cursor | None = Field(None, description="`next` of the page before.")
    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="Deliveries on a page.")


@webhooks.before_request
def _read_body() -> None:
    if request.endpoint in ("webhooks.create", "webhooks.change", "webhooks.rotate"):
        require_json()


@webhooks.post(
    "/webhooks",
    operation_id="create_webhook",
    responses={
        201: json_answer(wire.WebhookWithSecret, "Registered; the secret is shown this once.", _LOCATION),
        **problems(403, 409, 413, 415, 422),
    },
)
def create(body: WebhookRequest, query: NoQuery) -> Response:
    """Register an address that is told of the end of your jobs."""
    parts = services()
    hook, secret = create_webhook(
        parts.db, parts.settings, caller().owner, body.url, events=body.events, secret=body.secret
    )
    answer = as_json(_with_secret(hook, secret), 201)
    answer.headers["Location"] = url_for("webhooks.read", webhook_id=hook.public_id)
    return answer


@webhooks.get(
    "/webhooks",
    operation_id="list_webhooks",
    responses={200: json_answer(wire.WebhookList, "Your webhooks, oldest first."), **problems()},
)
def list_all(query: NoQuery) -> Response:
    """List your webhooks."""
    return as_json(wire.WebhookList(items=[_as_answer(hook) for hook in list_webhooks(services().db, caller().owner)]))


@webhooks.get(
    "/webhooks/<webhook_id>",
    operation_id="get_webhook",
    responses={200: json_answer(wire.Webhook, "The webhook."), **problems(404)},
)
def read(path: WebhookPath, query: NoQuery) -> Response:
    """Read a webhook, without its secret."""
    return as_json(_as_answer(get_webhook(services().db, caller().owner, path.webhook_id)))


@webhooks.patch(
    "/webhooks/<webhook_id>",
    operation_id="change_webhook",
    responses={200: json_answer(wire.Webhook, "The webhook as it is now."), **problems(403, 404, 413, 415, 422)},
)
def change(path: WebhookPath, body: WebhookChange, query: NoQuery) -> Response:
    """Change a webhook's address or events, disable or enable it."""
    parts = services()
    hook = change_webhook(
        parts.db,
        parts.settings,
        caller().owner,
        path.webhook_id,
        url=body.url,
        events=body.events,
        enabled=body.enabled,
    )
    return as_json(_as_answer(hook))


@webhooks.delete(
    "/webhooks/<webhook_id>",
    operation_id="delete_webhook",
    responses={204: {"description": "It is gone.", "headers": REQUEST_ID | LIMITS}, **problems(403, 404)},
)
def delete(path: WebhookPath, query: NoQuery) -> Response:
    """Delete a webhook with its secrets and deliveries."""
    delete_webhook(services().db, caller().owner, path.webhook_id)
    return Response(status=204)


@webhooks.post(
    "/webhooks/<webhook_id>/secret",
    operation_id="rotate_webhook_secret",
    responses={
        200: json_answer(wire.WebhookWithSecret, "The new secret, shown this once."),
        **problems(403, 404, 413, 415, 422),
    },
)
def rotate(path: WebhookPath, body: NewSecret, query: NoQuery) -> Response:
    """Make a new secret. For a day messages are signed with the old one, too."""
    return as_json(_with_secret(*rotate_secret(services().db, caller().owner, path.webhook_id, body.secret)))


@webhooks.get(
    "/webhooks/<webhook_id>/deliveries",
    operation_id="list_deliveries",
    responses={200: json_answer(wire.DeliveryPage, "A page of deliveries, newest first."), **problems(404)},
)
def deliveries(path: WebhookPath, query: DeliveriesQuery) -> Response:
    """List what was, or is to be, delivered to a webhook; kept for 30 days."""
    page = list_deliveries(services().db, caller().owner, path.webhook_id, after=query.after, limit=query.limit)
    items = [_as_delivery(delivery) for delivery in page.items]
    return as_json(wire.DeliveryPage(items=items, next=page.next, has_more=page.has_more))


@webhooks.post(
    "/webhooks/<webhook_id>/deliveries/<delivery_id>/send",
    operation_id="send_delivery_again",
    responses={202: json_answer(wire.Delivery, "It is sent again, with all its retries."), **problems(403, 404, 409)},
)
def again(path: DeliveryPath, query: NoQuery) -> Response:
    """Send a delivery again, whatever became of it, under the same `webhook-id`."""
    return as_json(_as_delivery(send_again(services().db, caller().owner, path.webhook_id, path.delivery_id)), 202)


def _as_answer(hook: Webhook) -> wire.Webhook:
    return wire.Webhook.model_validate(_facts(hook))


def _with_secret(hook: Webhook, secret: str) -> wire.WebhookWithSecret:
    return wire.WebhookWithSecret.model_validate({**_facts(hook), "secret": secret})


def _facts(hook: Webhook) -> dict[str, object]:
    return {
        "id": hook.public_id,
        "url": hook.url,
        "events": list(hook.events),
        "enabled": hook.disabled_at is None,
        "disabled_at": hook.disabled_at,
        "disabled_reason": hook.disabled_reason,
        "old_secret_until": hook.old_secret_until,
        "created_at": hook.created_at,
    }


def _as_delivery(delivery: Delivery) -> wire.Delivery:
    names = set(wire.Delivery.model_fields) - {"id"}
    facts = {name: getattr(delivery, name) for name in names}
    return wire.Delivery.model_validate({**facts, "id": delivery.public_id})
