"""Webhooks: who wants to be told of the end of jobs, at which address, under which secrets."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.errors import ConflictError, NotFoundError, UnprocessableError
from mien.ledger.events import EVENTS
from mien.ledger.submit import new_public_id
from mien.schema import deliveries, webhooks
from mien.settings import Settings
from mien.webhook_addresses import AddressRefusedError, check_url, resolve
from mien.webhook_signature import new_secret, secret_key

OVERLAP = dt.timedelta(hours=24)
"""How long the secret before is still signed with, after a new one was made."""


@dataclass(frozen=True)
class Webhook:
    """A webhook without its secrets."""

    id: int
    public_id: str
    url: str
    events: tuple[str, ...]
    created_at: dt.datetime
    disabled_at: dt.datetime | None
    disabled_reason: str | None
    old_secret_until: dt.datetime | None


def create_webhook(
    db: Database, settings: Settings, owner: str, url: str, *, events: Sequence[str] = EVENTS, secret: str | None = None
) -> tuple[Webhook, str]:
    """Register a webhook; gives it and its secret, which is not shown again.

    Raises:
        UnprocessableError: ``bad_webhook_url``, ``webhook_address_refused``, ``bad_webhook_secret``.
        ConflictError: ``too_many_webhooks``.
    """
    _check_address(settings, url)
    secret = new_secret() if secret is None else secret
    secret_key(secret)
    with db.write() as connection:
        count = connection.execute(
            sa.select(sa.func.count()).select_from(webhooks).where(webhooks.c.owner == owner)
        ).scalar_one()
        if count >= settings.webhooks_per_owner:
            raise ConflictError(
                f"You have {count:,} webhooks, as many as you may have (MIEN_WEBHOOKS_PER_OWNER); delete one first.",
                code="too_many_webhooks",
            )
        row = connection.execute(
            webhooks.insert()
            .values(
                public_id=new_public_id(),
                owner=owner,
                url=url,
                secrets=[{"secret": secret, "until": None}],
                events=_in_order(events),
                created_at=db.now(connection),
            )
            .returning(webhooks)
        ).one()
    return _as_webhook(row), secret


def list_webhooks(db: Database, owner: str) -> list[Webhook]:
    """The owner's webhooks, oldest first."""
    with db.read() as connection:
        rows = connection.execute(sa.select(webhooks).where(webhooks.c.owner == owner).order_by(webhooks.c.id)).all()
    return [_as_webhook(row) for row in rows]


def get_webhook(db: Database, owner: str, public_id: str) -> Webhook:
    """One of the owner's webhooks.

    Raises:
        NotFoundError: ``unknown_webhook``.
    """
    with db.read() as connection:
        return _as_webhook(_one(connection, owner, public_id))


def change_webhook(
    db: Database,
    settings: Settings,
    owner: str,
    public_id: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> Webhook:
    """Change what is given. Enabling one again takes up the deliveries that have waited meanwhile.

    Raises:
        NotFoundError: ``unknown_webhook``.
        UnprocessableError: ``bad_webhook_url``, ``webhook_address_refused``.
    """
    if url is not None:
        _check_address(settings, url)
    with db.write() as connection:
        now = db.now(connection)
        row = _one(connection, owner, public_id, lock=True)
        values: dict[str, Any] = {}
        if url is not None:
            values["url"] = url
        if events is not None:
            values["events"] = _in_order(events)
        if enabled is True and row.disabled_at is not None:
            values |= {"disabled_at": None, "disabled_reason": None}
            connection.execute(
                deliveries.update()
                .where(deliveries.c.webhook_id == row.id, deliveries.c.state == "held")
                .values(state="pending", next_attempt_at=now)
            )
        if enabled is False and row.disabled_at is None:
            disable(connection, row.id, now, "Disabled on request.")
        if values:
            connection.execute(webhooks.update().where(webhooks.c.id == row.id).values(**values))
        return _as_webhook(_one(connection, owner, public_id))


def disable(connection: sa.Connection, webhook_id: int, now: dt.datetime, reason: str) -> None:
    """Call it no more; what waits for it is held until it is enabled again."""
    connection.execute(
        webhooks.update().where(webhooks.c.id == webhook_id).values(disabled_at=now, disabled_reason=reason)
    )
    connection.execute(
        deliveries.update()
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.state == "pending")
        .values(state="held", next_attempt_at=None)
    )


def delete_webhook(db: Database, owner: str, public_id: str) -> None:
    """Delete a webhook with its secrets and deliveries.

    Raises:
        NotFoundError: ``unknown_webhook``.
    """
    with db.write() as connection:
        # the row first: whoever ends a job just now has either written its delivery, or does not see the webhook
        row = _one(connection, owner, public_id, lock=True)
        connection.execute(deliveries.delete().where(deliveries.c.webhook_id == row.id))
        connection.execute(webhooks.delete().where(webhooks.c.id == row.id))


def rotate_secret(db: Database, owner: str, public_id: str, secret: str | None = None) -> tuple[Webhook, str]:
    """Make a new secret; for a day messages are signed with the one before, too. Gives the new one, shown this once.

    Raises:
        NotFoundError: ``unknown_webhook``.
        UnprocessableError: ``bad_webhook_secret``.
    """
    secret = new_secret() if secret is None else secret
    secret_key(secret)
    with db.write() as connection:
        now = db.now(connection)
        row = _one(connection, owner, public_id, lock=True)
        before = next(item["secret"] for item in row.secrets if item["until"] is None)
        kept = [
            {"secret": secret, "until": None},
            {"secret": before, "until": (now + OVERLAP).isoformat()},
        ]
        connection.execute(webhooks.update().where(webhooks.c.id == row.id).values(secrets=kept))
        return _as_webhook(_one(connection, owner, public_id)), secret


def valid_secrets(stored: Sequence[dict[str, Any]], now: dt.datetime) -> list[str]:
    """The secrets to sign with now, the newest first."""
    return [
        item["secret"] for item in stored if item["until"] is None or dt.datetime.fromisoformat(item["until"]) > now
    ]


def _check_address(settings: Settings, url: str) -> None:
    check_url(url)
    try:
        resolve(url, settings.webhook_networks)
    except AddressRefusedError as error:
        raise UnprocessableError(
            f"The webhook's address cannot be used: {error}.", code="webhook_address_refused", field="url"
        ) from None


def _in_order(events: Sequence[str]) -> list[str]:
    return [event for event in EVENTS if event in events]


def _one(connection: sa.Connection, owner: str, public_id: str, *, lock: bool = False) -> sa.Row[Any]:
    statement = sa.select(webhooks).where(webhooks.c.owner == owner, webhooks.c.public_id == public_id)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        raise NotFoundError(
            f"There is no webhook {public_id!r}; `mien webhooks list` or GET /api/v1/webhooks lists yours.",
            code="unknown_webhook",
        )
    return row


def _as_webhook(row: sa.Row[Any]) -> Webhook:
    until = [dt.datetime.fromisoformat(item["until"]) for item in row.secrets if item["until"] is not None]
    return Webhook(
        id=row.id,
        public_id=row.public_id,
        url=row.url,
        events=tuple(row.events),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        old_secret_until=max(until, default=None),
    )
