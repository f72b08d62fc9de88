"""The system in numbers, on both databases."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

from mien.database import Database
from mien.ledger.lease import take_chunk
from mien.schema import chunks
from mien.system_state import recent_trouble, throughput, work_waiting
from tests.support.ledger import bad, expanded_job, ok, taker, work_off


def test_throughput_by_the_minute_of_the_commit(db: Database, tmp_path: Path) -> None:
    assert [minute["images"] for minute in throughput(db, 5)] == [0] * 5
    expanded_job(db, tmp_path / "a", 12)
    work_off(db)
    with db.write() as connection:  # one of the three chunks was committed three minutes ago, one long before
        now = db.now(connection)
        for number, minutes in ((1, 3), (2, 300)):
            connection.execute(
                chunks.update()
                .where(chunks.c.commit_number == number)
                .values(committed_at=now - dt.timedelta(minutes=minutes))
            )
    found = throughput(db, 5)
    assert sum(minute["images"] for minute in found) == 8
    assert found[1]["images"] == 4 or found[2]["images"] == 4  # whatever second of the minute it is
    assert [later["minute"] - minute["minute"] for minute, later in itertools.pairwise(found)] == [
        dt.timedelta(minutes=1)
    ] * 4


def test_work_that_waits_and_what_went_wrong(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 8)
    work_off(db, lambda image: bad(image) if image.position == 0 else ok(image))
    expanded_job(db, tmp_path / "b", 10)
    assert take_chunk(db, taker(), 60) is not None
    found = work_waiting(db)
    assert (found["images_due"] + found["images_leased"], found["chunks_leased"]) == (10, 1)
    assert found["images_leased"] > 0 and found["jobs"] == {"completed": 1, "running": 1}
    trouble = recent_trouble(db, "local")
    assert trouble["images"] == [{"code": "corrupt", "images": 2, "jobs": 1, "last_job": job}]
    assert trouble["jobs"] == [] and recent_trouble(db, "other") == {"images": [], "jobs": []}
