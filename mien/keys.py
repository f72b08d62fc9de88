"""API keys: 256 random bits, shown once, stored as SHA-256, compared in constant time."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from mien.database import Database
from mien.errors import NotFoundError
from mien.schema import api_keys

LOCAL_OWNER = "local"
"""Who owns the jobs of an embedded Mien without keys."""
SHOWN_PREFIX = 8
LAST_USED_EVERY = dt.timedelta(minutes=5)


@dataclass(frozen=True)
class KeyInfo:
    """An API key without its secret."""

    id: int
    name: str
    owner: str
    prefix: str
    created_at: dt.datetime
    last_used_at: dt.datetime | None
    revoked_at: dt.datetime | None


def create_key(db: Database, name: str, owner: str = "default", secret: str | None = None) -> tuple[KeyInfo, str]:
    """Make a key; the secret is in the answer and nowhere else."""
    secret = secret or f"mien_{secrets.token_urlsafe(32)}"
    with db.write() as connection:
        now = db.now(connection)
        row = connection.execute(
            api_keys.insert()
            .values(name=name, owner=owner, prefix=secret[:SHOWN_PREFIX], sha256=_hash(secret), created_at=now)
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


def authenticate(db: Database, secret: str) -> str | None:
    """The owner that this key stands for, or None."""
    digest = _hash(secret)
    with db.read() as connection:
        row = connection.execute(
            sa.select(api_keys).where(api_keys.c.sha256 == digest, api_keys.c.revoked_at.is_(None))
        ).one_or_none()
        now = db.now(connection)
    if row is None or not hmac.compare_digest(row.sha256, digest):
        return None
    if row.last_used_at is None or now - row.last_used_at > LAST_USED_EVERY:
        with db.write() as connection:
            connection.execute(api_keys.update().where(api_keys.c.id == row.id).values(last_used_at=now))
    return str(row.owner)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _info(row: sa.Row[tuple[object, ...]]) -> KeyInfo:
    facts = row._mapping
    return KeyInfo(**{name: facts[name] for name in KeyInfo.__dataclass_fields__})
