"""Which schema a database has, without Alembic: every front end asks at its start, and Alembic is slow to import."""

from __future__ import annotations

import sqlalchemy as sa

from mien.database import Database

SCHEMA_VERSION = "0001"
"""The newest revision in ``migrations/versions`` (a test holds them together)."""


def is_current(db: Database) -> bool:
    """Whether the database has the schema of this version, or of a later one.

    Migrations only add what the version before can do without, so that processes are upgraded one by one: those of the
    old version go on, and may be started again, on a database that was migrated already.

    Raises:
        UnavailableError: the database does not answer.
    """
    with db.read() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return False
        versions = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all()
    return len(versions) == 1 and str(versions[0]) >= SCHEMA_VERSION  # numbers of four digits: they sort as text
