"""What travels over HTTP about webhooks."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import Field

from mien.wire import PageOf, Wire

Event = Literal["job.completed", "job.cancelled", "job.failed"]


class Webhook(Wire):
    """Who is told of the end of jobs, and of which ends."""

    id: str
    url: str
    events: list[Event]
    enabled: bool
    disabled_at: dt.datetime | None
    disabled_reason: str | None
    old_secret_until: dt.datetime | None = Field(description="Until when messages are signed with the old secret, too.")
    created_at: dt.datetime


class WebhookWithSecret(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str = Field(description="`whsec_` and Base64: the key of the signatures. Keep it.")


class WebhookList(Wire):
    """The webhooks of an owner."""

    items: list[Webhook]


class Delivery(Wire):
    """One end of a job for one webhook."""

    id: str = Field(description="The `webhook-id` of its messages, the same for every attempt.")
    job: str | None
    event: Event
    state: Literal["pending", "delivered", "failed", "held"] = Field(
        description="`held`: its webhook is disabled; `failed`: given up."
    )
    attempts: int
    next_attempt_at: dt.datetime | None
    last_status: int | None = Field(description="The status that the receiver answered last.")
    last_error: str | None
    created_at: dt.datetime
    delivered_at: dt.datetime | None


class DeliveryPage(PageOf[Delivery]):
    """Deliveries, newest first."""
