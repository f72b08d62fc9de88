"""Which schema a database has, without Alembic: every front end asks at its start, and Alembic is slow to import."""

from __future__ import annotations

import sqlalchemy as sa

from mien.database import Database

SCHEMA_VERSION = "0001"
"""The newest revision in ``migrations/versions`` (a test holds them together)."""


def is_current(db: Database) -> bool:
    """Whether the database has the schema of this version.

    Raises:
        UnavailableError: the database does not answer.
    """
    with db.read() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return False
        versions = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all()
    return list(versions) == [SCHEMA_VERSION]
