"""Deliveries: each end of a job told to each webhook, tried again from 5 seconds to 24 hours later, through the ledger.

An attempt is taken by moving its next time on, so that a sender that dies costs a minute and none is lost; a receiver
may then hear of it twice, under the same ``webhook-id``. The state: ``pending`` (it is tried or waits), ``delivered``,
``failed`` (given up), ``held`` (its webhook is disabled).
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien import metrics
from mien.database import Database
from mien.errors import ConflictError, MienError, NotFoundError
from mien.paging import Page, decode_cursor, encode_cursor
from mien.schema import deliveries, jobs, webhooks
from mien.settings import Settings
from mien.webhook_sending import GONE, Sent, send
from mien.webhooks import disable, get_webhook, valid_secrets

log = logging.getLogger(__name__)

RETRY_AFTER_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pauses before each further attempt: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h; three days altogether."""
JITTER = 0.1
KEPT = dt.timedelta(days=30)
"""How long deliveries that have ended are listed."""
FORGET_EVERY_S = 3600.0
AT_ONCE = 8
MARGIN_S = 60.0
FINAL = ("delivered", "failed")


@dataclass(frozen=True)
class Delivery:
    """One end of a job for one webhook."""

    public_id: str
    job: str | None
    event: str
    state: str
    attempts: int
    next_attempt_at: dt.datetime | None
    last_status: int | None
    last_error: str | None
    created_at: dt.datetime
    delivered_at: dt.datetime | None
    payload: dict[str, Any]


def list_deliveries(
    db: Database, owner: str, webhook: str, *, after: str | None = None, limit: int = 50
) -> Page[Delivery]:
    """The deliveries of a webhook, newest first.

    Raises:
        NotFoundError: ``unknown_webhook``.
    """
    found = get_webhook(db, owner, webhook)
    statement = _with_job().where(deliveries.c.webhook_id == found.id).order_by(deliveries.c.id.desc())
    if after is not None:
        statement = statement.where(deliveries.c.id < decode_cursor(after, "deliveries", 1)[0])
    with db.read() as connection:
        rows = connection.execute(statement.limit(limit + 1)).all()
    shown = rows[:limit]
    return Page(
        items=[_as_delivery(row) for row in shown],
        next=encode_cursor("deliveries", shown[-1].id) if shown else after,
        has_more=len(rows) > limit,
    )


def send_again(db: Database, owner: str, webhook: str, public_id: str) -> Delivery:
    """Try a delivery anew from now on, whatever became of it: under the same ``webhook-id``, with all its retries.

    Raises:
        NotFoundError: ``unknown_webhook``, ``unknown_delivery``.
        ConflictError: ``webhook_disabled``.
    """
    found = get_webhook(db, owner, webhook)
    if found.disabled_at is not None:
        raise ConflictError("The webhook is disabled; enable it first.", code="webhook_disabled")
    chosen = sa.and_(deliveries.c.webhook_id == found.id, deliveries.c.public_id == public_id)
    with db.write() as connection:
        connection.execute(
            deliveries.update()
            .where(chosen)
            .values(state="pending", attempts=0, next_attempt_at=db.now(connection), delivered_at=None)
        )
        row = connection.execute(_with_job().where(chosen)).one_or_none()
    if row is None:
        raise NotFoundError(f"This webhook has no delivery {public_id!r}.", code="unknown_delivery")
    return _as_delivery(row)


@dataclass(frozen=True)
class _Attempt:
    """One attempt in hand."""

    id: int
    webhook_id: int
    number: int
    public_id: str
    payload: dict[str, Any]
    url: str
    secrets: list[str]
    timestamp: int


class Deliverer:
    """Sends what is due. Several processes may: each attempt is one's alone."""

    def __init__(self, db: Database, settings: Settings, stopping: Callable[[], bool] = lambda: False) -> None:
        self._db = db
        self._settings = settings
        self._stopping = stopping
        self._forget_at = 0.0

    def send_due(self) -> int:
        """Send everything that is due now, one at a time to each webhook; gives how many attempts were made.

        A receiver that hangs holds up its own webhook, and a round by at most the time it is given.
        """
        made = 0
        while not self._stopping() and self._any_due() and (attempts := self._take()):
            with ThreadPoolExecutor(len(attempts), thread_name_prefix="webhook") as threads:
                list(threads.map(self._carry_out, attempts))
            made += len(attempts)
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_EVERY_S
            self._forget_old()
        return made

    def _any_due(self) -> bool:
        with self._db.read() as connection:
            due = sa.select(deliveries.c.id).where(
                deliveries.c.state == "pending", deliveries.c.next_attempt_at <= self._db.now(connection)
            )
            return connection.execute(due.limit(1)).first() is not None

    def _take(self) -> list[_Attempt]:
        """Up to ``AT_ONCE`` attempts, of different webhooks; those tried least come first."""
        with self._db.write() as connection:
            now = self._db.now(connection)
            due = sa.and_(deliveries.c.state == "pending", deliveries.c.next_attempt_at <= now)
            first = sa.select(sa.func.min(deliveries.c.id)).where(due).group_by(deliveries.c.webhook_id)
            rows = connection.execute(
                sa.select(deliveries, webhooks.c.url, webhooks.c.secrets)
                .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
                .where(due, deliveries.c.id.in_(first), webhooks.c.disabled_at.is_(None))
                .order_by(deliveries.c.attempts, deliveries.c.next_attempt_at)
                .limit(AT_ONCE)
                .with_for_update(of=deliveries, skip_locked=True)
            ).all()
            lease = dt.timedelta(seconds=self._settings.webhook_timeout_s + MARGIN_S)
            for row in rows:
                connection.execute(
                    deliveries.update()
                    .where(deliveries.c.id == row.id)
                    .values(attempts=row.attempts + 1, next_attempt_at=now + lease)
                )
        return [
            _Attempt(
                id=row.id,
                webhook_id=row.webhook_id,
                number=row.attempts + 1,
                public_id=row.public_id,
                payload=row.payload,
                url=row.url,
                secrets=valid_secrets(row.secrets, now),
                timestamp=int(now.timestamp()),
            )
            for row in rows
        ]

    def _carry_out(self, attempt: _Attempt) -> None:
        sent = send(
            attempt.url,
            attempt.payload,
            message_id=attempt.public_id,
            timestamp=attempt.timestamp,
            secrets=attempt.secrets,
            allowed=self._settings.webhook_networks,
            timeout_s=self._settings.webhook_timeout_s,
        )
        try:
            result = self._record(attempt, sent)
        except MienError as error:
            log.warning("%s The webhook is tried again in a minute.", error)
            return
        if not sent.ok:
            log.warning("delivery %s, attempt %d: %s", attempt.public_id, attempt.number, sent.error)
        metrics.webhook_attempts.labels(result).inc()

    def _record(self, attempt: _Attempt, sent: Sent) -> str:
        """Write down what came of an attempt, unless another one has begun meanwhile; gives the result."""
        with self._db.write() as connection:
            if sent.status == GONE:  # the webhook first, as whoever deletes one does
                connection.execute(
                    sa.select(webhooks.c.id).where(webhooks.c.id == attempt.webhook_id).with_for_update()
                )
            now = self._db.now(connection)
            values: dict[str, Any] = {"last_status": sent.status, "last_error": sent.error}
            if sent.ok:
                result = "delivered"
                values |= {"state": "delivered", "delivered_at": now, "next_attempt_at": None}
            elif sent.status == GONE:
                result = "disabled"
                values |= {"state": "failed", "next_attempt_at": None}
            elif attempt.number > len(RETRY_AFTER_S):
                result = "failed"
                values |= {"state": "failed", "next_attempt_at": None}
            else:
                result = "retried"
                pause = RETRY_AFTER_S[attempt.number - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
                values |= {"next_attempt_at": now + dt.timedelta(seconds=pause)}
            connection.execute(
                deliveries.update()
                .where(
                    deliveries.c.id == attempt.id,
                    deliveries.c.state == "pending",
                    deliveries.c.attempts == attempt.number,
                )
                .values(**values)
            )
            if result == "disabled":
                disable(connection, attempt.webhook_id, now, "The receiver answered 410 Gone.")
        return result

    def _forget_old(self) -> None:
        with self._db.write() as connection:
            connection.execute(
                deliveries.delete().where(
                    deliveries.c.state.in_(FINAL), deliveries.c.created_at < self._db.now(connection) - KEPT
                )
            )


def _with_job() -> sa.Select[Any]:
    return sa.select(deliveries, jobs.c.public_id.label("job")).outerjoin(jobs, jobs.c.id == deliveries.c.job_id)


def _as_delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(**{name: row._mapping[name] for name in Delivery.__dataclass_fields__})
