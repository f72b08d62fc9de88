"""The audit log: who submitted, read, exported, changed and deleted which job, and when. Ids and kinds, no file names.

It outlives the jobs it speaks of, for a time of its own (``MIEN_AUDIT_KEEP_S``), and is read by admins only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.paging import Page, decode_cursor, encode_cursor
from mien.schema import audit

PER_SWEEP = 5000
DETAIL_LENGTH = 60


@dataclass(frozen=True)
class Act:
    """What somebody did. ``owner`` is who acted, ``key_id`` by which key (None: nobody needed one)."""

    owner: str
    action: str
    key_id: int | None = None
    job: str | None = None
    detail: str | None = None
    """Of an export its kind, else the operation."""
    receipt: str | None = None
    at: dt.datetime | None = None
    """When, if it is written later."""


@dataclass(frozen=True)
class Entry:
    """A line of the audit log."""

    id: int
    at: dt.datetime
    owner: str
    key_id: int | None
    action: str
    detail: str | None
    job: str | None
    receipt: str | None


@dataclass(frozen=True)
class AuditFilter:
    """Which entries; None: any. ``since`` is included, ``until`` is not."""

    owner: str | None = None
    action: str | None = None
    job: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """As conditions on ``audit``."""
        found = [
            audit.c[name] == value
            for name in ("owner", "action", "job")
            if (value := getattr(self, name)) is not None
        ]  # fmt: skip
        if self.since is not None:
            found.append(audit.c.at >= self.since)
        if self.until is not None:
            found.append(audit.c.at < self.until)
        return found


EVERYTHING = AuditFilter()


def write_audit(db: Database, acts: Sequence[Act]) -> None:
    """Write them down, in their order."""
    if acts:
        with db.write() as connection:
            add_audit(connection, acts, db.now(connection))


def add_audit(connection: sa.Connection, acts: Sequence[Act], now: dt.datetime) -> None:
    """Write them down within a transaction."""
    connection.execute(audit.insert(), [_row(act, now) for act in acts])


def list_audit(
    db: Database, *, among: AuditFilter = EVERYTHING, after: str | None = None, limit: int = 100
) -> Page[Entry]:
    """The entries, newest first.

    Raises:
        InvalidRequestError: ``bad_cursor``, ``cursor_of_another_job``.
    """
    statement = sa.select(audit).where(*among.conditions()).order_by(audit.c.id.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(audit.c.id < decode_cursor(after, "audit", 1)[0])
    with db.read() as connection:
        rows = connection.execute(statement).all()
    shown = rows[:limit]
    return Page(
        items=[Entry(**row._mapping) for row in shown],
        next=encode_cursor("audit", shown[-1].id) if shown else after,
        has_more=len(rows) > limit,
    )


def expire_audit(db: Database, keep_s: int) -> int:
    """Delete entries that are older; gives how many (some at a time)."""
    with db.read() as connection:  # an index answers: no lock is taken where nothing is old
        limit = db.now(connection) - dt.timedelta(seconds=keep_s)
        old = connection.execute(
            sa.select(audit.c.id).where(audit.c.at < limit).order_by(audit.c.at).limit(PER_SWEEP)
        ).scalars().all()  # fmt: skip
    if old:
        with db.write() as connection:
            connection.execute(audit.delete().where(audit.c.id.in_(old)))
    return len(old)


def _row(act: Act, now: dt.datetime) -> dict[str, Any]:
    facts = asdict(act)
    facts["at"] = act.at or now
    facts["detail"] = act.detail[:DETAIL_LENGTH] if act.detail else None
    return facts
