"""What a draft holds, page by page: every upload once, in path order, and of no other job."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.database import Database
from mien.errors import InvalidRequestError
from mien.ledger.drafts import Arrived, UploadLimits, list_uploads, paths_after, record_uploads, without_job
from mien.ledger.submit import submit
from mien.schema import jobs
from tests.support.ledger import new_job

LIMITS = UploadLimits(files=100, size=10_000)
NAMES = [b"c.jpg", b"a.jpg", b"b/\xff.jpg", b"d.jpg", b"b.jpg"]


def draft(db: Database, names: list[bytes]) -> tuple[int, str]:
    """A draft that holds these uploads: (id, public id)."""
    public_id, _ = submit(db, new_job(Path("/"), source_type="upload"), draft=True)
    with db.read() as connection:
        job_id = connection.execute(sa.select(jobs.c.id).where(jobs.c.public_id == public_id)).scalar_one()
    record_uploads(db, job_id, [Arrived(name, name.hex(), len(name), name.ljust(32, b"\0")) for name in names], LIMITS)
    return job_id, public_id


def test_uploads_are_listed_page_by_page_in_path_order(db: Database) -> None:
    job_id, public_id = draft(db, NAMES)
    draft(db, [b"of another draft.jpg"])
    found: list[tuple[bytes, int, bytes]] = []
    more: list[bool] = []
    after = None
    while not more or more[-1]:
        page = list_uploads(db, job_id, public_id, after=after, limit=2)
        found += [(row.path, row.bytes, row.sha256) for row in page.items]
        more.append(page.has_more)
        after = page.next
    assert found == [(name, len(name), name.ljust(32, b"\0")) for name in sorted(NAMES)]
    assert more == [True, True, False]
    end = list_uploads(db, job_id, public_id, after=after)
    assert (end.items, end.next, end.has_more) == ([], after, False)  # what comes later is asked for from here


def test_a_cursor_into_the_uploads_is_of_their_job_alone(db: Database) -> None:
    job_id, public_id = draft(db, NAMES)
    other_id, other_public_id = draft(db, NAMES)
    page = list_uploads(db, job_id, public_id, limit=2)
    with pytest.raises(InvalidRequestError) as caught:
        list_uploads(db, other_id, other_public_id, after=page.next)
    assert caught.value.code == "cursor_of_another_job"


def test_paths_come_each_once_in_their_order(db: Database) -> None:
    job_id, _ = draft(db, NAMES)
    draft(db, [b"of another draft.jpg"])
    assert paths_after(db, job_id, None, 3) == sorted(NAMES)[:3]
    assert paths_after(db, job_id, sorted(NAMES)[2], 3) == sorted(NAMES)[3:]
    assert paths_after(db, job_id, sorted(NAMES)[-1], 3) == []


def test_the_uploads_of_a_job_that_is_there_are_not_taken_for_what_a_crash_left(db: Database) -> None:
    _, public_id = draft(db, NAMES)
    assert without_job(db, [public_id, "never written down"]) == {"never written down"}
