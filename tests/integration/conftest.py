"""Tests of the ledger run on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mien.database import Database
from tests.support.servers import empty_database, migrated_ledger, migrated_template


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty, migrated ledger."""
    if request.param == "sqlite":
        file = tmp_path / "ledger.sqlite3"
        file.write_bytes(migrated_ledger())
        yield from _opened(f"sqlite:///{file}")
    else:
        server = request.getfixturevalue("postgres_server")
        with empty_database(server, migrated_template(server)) as url:
            yield from _opened(url)


def _opened(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.dispose()
