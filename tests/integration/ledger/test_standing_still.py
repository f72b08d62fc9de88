"""Everything stood still (a laptop slept, the database was locked or away): no loss is charged to anybody."""

from __future__ import annotations

import datetime as dt
import threading
import time
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from mien.database import Database
from mien.errors import LeaseLostError, UnavailableError
from mien.ledger.commit import commit_chunk
from mien.ledger.lease import renew_chunk, take_chunk
from mien.ledger.sweep import Patience, take_back_expired
from mien.migrate import migrate
from mien.schema import chunks
from tests.support.ledger import assert_exact, expanded_job, ok, taker


def _losses(db: Database) -> list[int]:
    with db.read() as connection:
        return list(connection.execute(sa.select(chunks.c.losses)).scalars())


def test_patience_lasts_one_lease_from_the_look_that_came_late() -> None:
    patience = Patience(interval_s=10, lease_s=60)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    # at most 40 s lie between two looks that nothing has delayed: an interval and half a lease
    looks = {
        0: True,
        40: True,
        81: False,
        110: False,
        140.5: False,
        141: True,
        181: True,
        222: False,
        262: False,
        282: True,
    }
    assert {at: patience.is_over(start + dt.timedelta(seconds=at)) for at in looks} == looks


def test_leases_that_ran_out_while_nobody_looked_are_left_alone_for_one_lease(db: Database, tmp_path: Path) -> None:
    expanded_job(db, tmp_path / "a", 4)
    patience = Patience(interval_s=0.05, lease_s=0.3)
    assert take_back_expired(db, patience) == 0
    lease = take_chunk(db, taker(), 0.3)
    assert lease is not None
    time.sleep(0.5)  # all processes sleep
    assert take_back_expired(db, patience) == 0
    assert renew_chunk(db, lease, 0.3)  # the worker has woken as well
    for _ in range(10):
        time.sleep(0.05)
        assert take_back_expired(db, patience) == 0
        assert renew_chunk(db, lease, 0.3)
    assert _losses(db) == [0]
    for _ in range(10):  # now the worker alone is gone
        time.sleep(0.05)
        take_back_expired(db, patience)
    assert _losses(db) == [1]


def test_a_look_that_itself_had_to_wait_counts_as_standing_still(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    migrate(db)
    expanded_job(db, tmp_path / "a", 4)
    patience = Patience(interval_s=0.05, lease_s=0.3)
    take_back_expired(db, patience)
    assert take_chunk(db, taker(), 0.3) is not None
    with db.write():  # somebody holds the lock
        look = threading.Thread(target=take_back_expired, args=(db, patience))
        look.start()
        time.sleep(0.6)
    look.join()
    assert _losses(db) == [0]
    db.dispose()


@pytest.mark.postgres
def test_a_process_frozen_in_mid_transaction_holds_up_nobody_for_longer_than_a_lease(
    postgres_url: str, tmp_path: Path
) -> None:
    db, frozen = Database(postgres_url), Database(postgres_url, longest_pause_s=1.5)
    migrate(db)
    job = expanded_job(db, tmp_path / "a", 4)
    late = take_chunk(frozen, taker("frozen"), 0.1)
    assert late is not None
    with pytest.raises(UnavailableError), frozen.write() as connection:
        connection.execute(chunks.update().values(token=late.token))
        time.sleep(2.2)
        connection.execute(sa.text("SELECT 1"))
    assert take_back_expired(db) == 1
    again = take_chunk(db, taker("other"), 60)
    assert again is not None
    commit_chunk(db, again, [ok(image) for image in again.images])
    with pytest.raises(LeaseLostError):
        commit_chunk(frozen, late, [ok(image) for image in late.images])
    assert assert_exact(db, job).ok == 4
    db.dispose()
    frozen.dispose()


@pytest.mark.postgres
def test_a_process_frozen_while_it_sends_rows_holds_up_nobody_either(postgres_url: str, tmp_path: Path) -> None:
    db, frozen = Database(postgres_url, longest_pause_s=0.5), Database(postgres_url)
    migrate(db)
    job = expanded_job(db, tmp_path / "a", 4)
    late = take_chunk(frozen, taker("frozen"), 0.1)
    assert late is not None
    taken = []
    with pytest.raises((UnavailableError, psycopg.OperationalError)), frozen.write() as connection:
        connection.execute(chunks.update().values(token=late.token))
        driver = connection.connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor, cursor.copy("COPY faces (image_id) FROM STDIN"):
            taken.append(take_back_expired(db))  # the row is locked, and it has not stood still for long
            until = time.monotonic() + 10
            while not sum(taken) and time.monotonic() < until:  # a session needs a moment to end
                time.sleep(0.1)
                taken.append(take_back_expired(db))
    assert taken[0] == 0
    assert sum(taken) == 1
    assert (assert_exact(db, job).ok, _losses(db)) == (0, [1])
    db.dispose()
    frozen.dispose()
