"""Results written in bulk: to the last character what was given, on both databases, and nothing by halves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.database import Database
from mien.errors import UnavailableError
from mien.ledger.bulk import write_faces
from mien.ledger.commit import FaceOutcome, ImageOutcome, commit_chunk, face_values
from mien.ledger.lease import take_chunk
from mien.schema import faces, images
from tests.support.ledger import assert_exact, expanded_job, taker

ODD = ["tab\there", "new\nline\r", 'quote"', "back\\slash", "100% %s %d", "\u00fcber \U0001f600", "{,}", "NULL"]


def test_odd_labels_numbers_and_texts_arrive_as_they_are(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 12, chunk_size=12, labels=ODD)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    given: dict[int, list[FaceOutcome]] = {}
    outcomes = []
    for place, image in enumerate(lease.images[:8]):
        shares = [1e-7 * (n + 1) for n in range(8)]
        shares[place] = 0.123456789
        faces_of = [
            FaceOutcome(-0.04, 1e7 + 0.05, 2.25, 1 / 3, None if place % 2 else 0.98765432, tuple(shares)),
            FaceOutcome(0, 0, 1, 1, 1.0, (1 / 8,) * 8),  # of equal ones the first label is the face's
        ]
        given[image.id] = faces_of
        content = bytes(range(place, place + 32))
        outcomes.append(ImageOutcome(image.id, "ok", width=1, height=2, file_bytes=1 << 40, format="JPEG",
                                     sha256=content, faces=tuple(faces_of), cached=bool(place % 2)))  # fmt: skip
    texts = ['It is "broken"', "a\\b, {c}", "line\nbreak \u2028 'x'", "NULL"]
    for image, text in zip(lease.images[8:], texts, strict=True):
        outcomes.append(ImageOutcome(image.id, "failed", error_code="corrupt", error=text))
    commit_chunk(db, lease, outcomes)
    row = assert_exact(db, job)
    assert (row.status, row.ok, row.failed, row.faces) == ("completed", 8, 4, 16)
    with db.read() as connection:
        kept = connection.execute(sa.select(faces).order_by(faces.c.image_id, faces.c.number)).all()
        rows = {row.id: row for row in connection.execute(sa.select(images))}
    assert [(f.image_id, f.number) for f in kept] == [(i, n) for i in sorted(given) for n in (0, 1)]
    for face in kept:
        wanted = face_values(given[face.image_id][face.number], ODD)
        assert {name: face._mapping[name] for name in wanted} == wanted
    assert kept[0].probabilities[ODD[0]] == kept[0].confidence == 0.123457
    assert kept[1].emotion == ODD[0]
    for outcome in outcomes:
        image_row = rows[outcome.image_id]
        assert (image_row.outcome, image_row.error_code, image_row.error) == (
            outcome.outcome, outcome.error_code, outcome.error,
        )  # fmt: skip
        assert (image_row.sha256, image_row.bytes, image_row.format, image_row.cached) == (
            outcome.sha256, outcome.file_bytes, outcome.format, outcome.cached,
        )  # fmt: skip
        assert image_row.faces == len(outcome.faces)


def test_a_face_that_cannot_be_written_leaves_the_chunk_as_it_was(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 3, chunk_size=3)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    good = ImageOutcome(lease.images[0].id, "ok", faces=(FaceOutcome(0, 0, 1, 1, 1.0, (0.7, 0.2, 0.1)),))
    outcomes = [good, *(replace(good, image_id=image.id) for image in lease.images[1:])]
    with db.write() as connection:  # a row that should not be there: the same face is written twice
        connection.execute(faces.insert().values(image_id=lease.images[2].id, number=0, job_id=lease.job_id,
                           chunk_id=lease.chunk_id, x=0, y=0, width=1, height=1, emotion="happy", confidence=1,
                           probabilities={}))  # fmt: skip
    with pytest.raises(Exception, match=r"(?i)unique"):
        commit_chunk(db, lease, outcomes)
    with db.write() as connection:
        connection.execute(faces.delete())
    assert assert_exact(db, job).pending == 3
    commit_chunk(db, lease, outcomes)
    assert assert_exact(db, job).status == "completed"


def test_a_connection_that_is_lost_in_the_midst_says_so(db: Database, tmp_path: Path) -> None:
    if db.is_sqlite:
        return  # nothing to lose
    job = expanded_job(db, tmp_path / "a", 1, chunk_size=1)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    from mien.ledger.commit import kept_face

    kept = [kept_face(lease.images[0].id, 0, FaceOutcome(0, 0, 1, 1, 1.0, (0.7, 0.2, 0.1)))]
    with pytest.raises(UnavailableError, match="lost"), db.write() as connection:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        with db.engine.connect() as other:
            other.execute(sa.text(f"SELECT pg_terminate_backend({pid}, 5000)"))
        write_faces(connection, lease.job_id, lease.chunk_id, lease.labels, kept)
    assert assert_exact(db, job).pending == 1
