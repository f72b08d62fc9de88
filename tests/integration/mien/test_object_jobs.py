"""The walk through a bucket as control does it: what is written down, and a server that goes away."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from mien import objects
from mien.database import Database
from mien.jobs import get_job, request_retry
from mien.ledger.commit import ImageOutcome
from mien.ledger.submit import submit
from mien.objects import store_identity
from mien.schema import images
from mien.settings import load_settings
from tests.support.ledger import assert_exact, control, new_job, work_off
from tests.support.s3_server import running_s3

pytestmark = pytest.mark.s3


def test_what_was_listed_is_kept_and_a_server_that_is_away_fails_nobody(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects._store.cache_clear()
    with running_s3(tmp_path) as server:
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(server.credentials(tmp_path / "credentials")))
        chosen = {"s3_endpoint_url": server.url}
        for number in range(5):
            server.put(f"study/{number}\n.jpg", b"%d" % number)
        server.put("study/notes.txt", b"")
        place = {
            "source_path": b"s3://faces/study",
            "source_text": "s3://faces/study",
            "source_identity": store_identity(load_settings(**chosen), b"s3://faces/study"),
        }
        job, _ = submit(db, new_job(tmp_path, **place))
        control(db, chunk_size=2, **chosen).expand()
        row = assert_exact(db, job)
        assert (row.status, row.total, row.skipped) == ("running", 5, 1)
        with db.read() as connection:
            rows = connection.execute(sa.select(images).order_by(images.c.path)).all()
        assert [(r.path, r.path_text, r.bytes) for r in rows] == [
            (b"%d\n.jpg" % n, f"{n}\\x0a.jpg", 1) for n in range(5)
        ]
        assert all(r.etag for r in rows)
        changed = rows[3].id

        def answer(image: object) -> ImageOutcome:
            number = image.id  # type: ignore[attr-defined]
            if number == changed:
                return ImageOutcome(number, "failed", error_code="changed", error="It was changed.")
            return ImageOutcome(number, "no_face")

        leases = work_off(db, answer)
        assert {(i.etag, i.size) for lease in leases for i in lease.images} == {(r.etag, 1) for r in rows}
        request_retry(db, "local", job)
        control(db, **chosen).expand()
        with db.read() as connection:
            assert connection.execute(sa.select(images.c.etag).where(images.c.id == changed)).scalar_one() is None
        work_off(db, lambda image: ImageOutcome(image.id, "no_face"))
        assert assert_exact(db, job).status == "completed"
        waiting, _ = submit(db, new_job(tmp_path, **place))
    control(db, **chosen).expand()  # the server is gone by now
    held = get_job(db, "local", waiting)
    assert (held.status, held.notice_code, held.counts["failed"]) == ("queued", "source_away", 0)
    assert "s3://faces/study cannot be read just now: the object storage does not answer" in (held.notice or "")
