"""API keys: 256 random bits, shown once, stored as SHA-256, compared in constant time; what each may do, how much."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.errors import NotFoundError
from mien.schema import api_keys
from mien.states import SCOPES, Scope

LOCAL_OWNER = "local"
"""Who owns the jobs of an embedded Mien without keys."""
SHOWN_PREFIX = 8
LAST_USED_EVERY = dt.timedelta(minutes=5)


@dataclass(frozen=True)
class Limits:
    """How much a key may do; None: as the settings say, 0: without a limit."""

    requests_per_minute: int | None = None
    concurrent_jobs: int | None = None
    images_per_day: int | None = None
    bytes_per_day: int | None = None


AS_SET = Limits()


@dataclass(frozen=True)
class KeyInfo:
    """An API key without its secret."""

    id: int
    name: str
    owner: str
    prefix: str
    scope: Scope
    limits: Limits
    created_at: dt.datetime
    last_used_at: dt.datetime | None
    revoked_at: dt.datetime | None


def create_key(
    db: Database,
    name: str,
    owner: str = "default",
    secret: str | None = None,
    *,
    scope: Scope = "submit",
    limits: Limits = AS_SET,
) -> tuple[KeyInfo, str]:
    """Make a key; the secret is in the answer and nowhere else.

    ``read`` sees the owner's jobs, ``submit`` makes, changes and deletes them too, ``admin`` also changes what all
    owners share (the default model).
    """
    secret = secret or f"mien_{secrets.token_urlsafe(32)}"
    with db.write() as connection:
        now = db.now(connection)
        row = connection.execute(
            api_keys.insert()
            .values(
                name=name,
                owner=owner,
                prefix=secret[:SHOWN_PREFIX],
                sha256=_hash(secret),
                scope=scope,
                created_at=now,
                **asdict(limits),
            )
            .returning(api_keys)
        ).one()
    return _info(row), secret


def list_keys(db: Database) -> list[KeyInfo]:
    """Every key, oldest first, revoked ones too."""
    with db.read() as connection:
        return [_info(row) for row in connection.execute(sa.select(api_keys).order_by(api_keys.c.id))]


def revoke_key(db: Database, key_id: int) -> KeyInfo:
    """Close a key for good.

    Raises:
        NotFoundError: ``unknown_key``.
    """
    with db.write() as connection:
        now = db.now(connection)
        row = connection.execute(
            api_keys.update()
            .where(api_keys.c.id == key_id)
            .values(
                revoked_at=sa.func.coalesce(api_keys.c.revoked_at, sa.bindparam("at", now, api_keys.c.revoked_at.type))
            )
            .returning(api_keys)
        ).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no key {key_id}; `mien keys list` shows them.", code="unknown_key")
    return _info(row)


def any_key(db: Database) -> bool:
    """Whether there is a key that opens."""
    with db.read() as connection:
        return (
            connection.execute(sa.select(api_keys.c.id).where(api_keys.c.revoked_at.is_(None)).limit(1)).first()
            is not None
        )


def allows(scope: Scope, needed: Scope) -> bool:
    """Whether a key of ``scope`` opens what needs ``needed``."""
    return SCOPES.index(scope) >= SCOPES.index(needed)


def authenticate(db: Database, secret: str) -> KeyInfo | None:
    """The key that this secret is, if it opens; its use is noted, to five minutes."""
    digest = _hash(secret)
    with db.read() as connection:
        row = connection.execute(
            sa.select(api_keys).where(api_keys.c.sha256 == digest, api_keys.c.revoked_at.is_(None))
        ).one_or_none()
        now = db.now(connection)
    if row is None or not hmac.compare_digest(row.sha256, digest):
        return None
    _note_use(db, row, now)
    return _info(row)


def open_key(db: Database, key_id: int) -> KeyInfo | None:
    """The key of this id, if it opens: for who signed in by it before. Its use is noted, to five minutes."""
    with db.read() as connection:
        row = connection.execute(
            sa.select(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        ).one_or_none()
        now = db.now(connection)
    if row is None:
        return None
    _note_use(db, row, now)
    return _info(row)


def _note_use(db: Database, row: sa.Row[Any], now: dt.datetime) -> None:
    if row.last_used_at is None or now - row.last_used_at > LAST_USED_EVERY:
        with db.write() as connection:
            connection.execute(api_keys.update().where(api_keys.c.id == row.id).values(last_used_at=now))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _info(row: sa.Row[tuple[object, ...]]) -> KeyInfo:
    facts = row._mapping
    limits = Limits(**{name: facts[name] for name in Limits.__dataclass_fields__})
    return KeyInfo(limits=limits, **{name: facts[name] for name in KeyInfo.__dataclass_fields__ if name != "limits"})
