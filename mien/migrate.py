"""Bring the database to the schema of this version, once, also when several processes try at the same moment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mien.database import Database
from mien.resources import resource

ADVISORY_LOCK = 0x4D49454E  # "MIEN"


def alembic_config(db: Database) -> Config:
    """Alembic's configuration for this database, without a file."""
    config = Config()
    config.set_main_option("script_location", str(resource("migrations")).replace("%", "%%"))
    config.attributes["database"] = db
    return config


def migrate(db: Database, revision: str = "head") -> None:
    """Upgrade to ``revision``. On PostgreSQL an advisory lock lets one process at a time through."""
    config = alembic_config(db)
    if db.is_sqlite:
        with db.write() as connection:  # BEGIN IMMEDIATE: the second process waits, then finds nothing to do
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        return
    # no transaction: the server ends one that only waits
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        guard.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        try:
            with db.write() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
        finally:
            guard.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
