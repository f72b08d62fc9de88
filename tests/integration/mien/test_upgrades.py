"""Upgrading one by one: an old version beside a new one, on a database that was migrated already."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

from mien.database import Database
from mien.heartbeat import beat, live_workers, set_wanted, working
from mien.schema_version import SCHEMA_VERSION, is_current
from tests.support.ledger import assert_exact, expanded_job, work_off


def test_this_version_works_on_the_database_of_a_later_one(db: Database, tmp_path: Path) -> None:
    """A later migration expands: columns with a default or without need of one, tables, indexes."""
    with db.write() as connection:
        for table in ("jobs", "chunks", "images", "faces", "workers", "deliveries"):
            connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN of_later INTEGER NOT NULL DEFAULT 7"))
            connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN of_later_too TEXT"))
        connection.execute(sa.text("CREATE TABLE of_later (id INTEGER PRIMARY KEY)"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
    assert is_current(db)
    beat(
        db, name="w", host="h", pid=1, device="cpu", precisions=["fp32"], models=["a" * 64], engines=1,
        images_per_s=1.0, version="0",
    )  # fmt: skip
    assert [worker.name for worker in live_workers(db)] == ["w"]
    public_id = expanded_job(db, tmp_path / "photos", 9)
    work_off(db)
    assert assert_exact(db, public_id).status == "completed"


def test_an_earlier_database_is_not_current(db: Database) -> None:
    with db.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    assert not is_current(db)
    assert re.fullmatch(r"\d{4}", SCHEMA_VERSION)


def test_a_worker_of_an_earlier_version_breaks_nobody(db: Database) -> None:
    """It writes the columns that it knows, and those only; what it does not know has a default."""
    statement = sa.text(
        "INSERT INTO workers"
        " (name, host, pid, device, precisions, models, engines, state, version, started_at, seen_at)"
        " VALUES ('old', 'h', 1, 'cpu', '[\"fp32\"]', '[]', 1, 'active', '0.0.1', :now, :now)"
    ).bindparams(sa.bindparam("now", type_=sa.DateTime(timezone=True)))
    with db.write() as connection:
        connection.execute(statement, {"now": db.now(connection)})
    (old,) = live_workers(db)
    assert (old.wanted, old.loaded, old.device_name, old.takes_work) == ("active", None, None, True)
    assert set_wanted(db, "old", "drained").wanted == "drained"
    with db.write() as connection:  # its next beat: it knows nothing of what is wanted
        connection.execute(sa.text("UPDATE workers SET state = 'active' WHERE name = 'old'"))
    assert working(live_workers(db))[0].wanted == "drained"
