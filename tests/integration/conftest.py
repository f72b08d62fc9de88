"""Tests of the ledger run on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mien.database import Database
from mien.migrate import migrate


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty, migrated ledger."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}" if sqlite else request.getfixturevalue("postgres_url")
    database = Database(url)
    migrate(database)
    yield database
    database.dispose()
