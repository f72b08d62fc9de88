"""What is known already is not classified again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from mien.database import Database
from mien.ledger.commit import ImageOutcome, commit_chunk
from mien.ledger.lease import ChunkLease, LeasedImage, take_chunk
from mien.ledger.submit import submit
from tests.support.ledger import assert_exact, bad, control, face, new_job, taker
from worker.known import find_known

LIMIT = 1 << 20


def lease_of(db: Database, folder: Path, files: dict[str, bytes]) -> tuple[str, ChunkLease]:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    public_id, _ = submit(db, new_job(folder))
    control(db).expand()
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    return public_id, lease


def seen(lease: ChunkLease, image: LeasedImage) -> ImageOutcome:
    content = (Path(lease.source_path.decode()) / image.path.decode()).read_bytes()
    return ImageOutcome(image.id, "ok", sha256=hashlib.sha256(content).digest(), faces=(face(),), decode_s=1.0)


def names(lease: ChunkLease, ids: object) -> list[str]:
    return sorted(image.path.decode() for image in lease.images if image.id in ids)  # type: ignore[operator]


def test_copies_within_a_chunk_are_classified_once(db: Database, tmp_path: Path) -> None:
    files = {"a.jpg": b"one", "b.jpg": b"two", "c.jpg": b"one", "d.jpg": b"other", "e.jpg": b"one"}
    job, lease = lease_of(db, tmp_path / "a", files)
    known = find_known(db, lease, LIMIT)
    rest = known.rest(lease)
    same = {"a.jpg", "c.jpg", "e.jpg"}
    assert len(rest) == 3
    assert {"b.jpg", "d.jpg"} < {image.path.decode() for image in rest}
    assert len(known.copies) == 2
    assert set(names(lease, known.copies)) < same
    classified = [seen(lease, image) for image in rest]
    commit_chunk(db, lease, [*classified, *known.copied(classified)])
    row = assert_exact(db, job)
    assert (row.ok, row.cached, row.decode_s) == (5, 2, 3.0)


def test_a_copy_of_what_failed_fails_too_and_is_no_hit(db: Database, tmp_path: Path) -> None:
    job, lease = lease_of(db, tmp_path / "a", {"a.jpg": b"one", "b.jpg": b"one"})
    known = find_known(db, lease, LIMIT)
    classified = [bad(image) for image in known.rest(lease)]
    commit_chunk(db, lease, [*classified, *known.copied(classified)])
    row = assert_exact(db, job)
    assert (row.failed, row.cached) == (2, 0)


def test_a_second_job_takes_over_what_the_first_found(db: Database, tmp_path: Path) -> None:
    _, first = lease_of(db, tmp_path / "a", {"a.jpg": b"one", "b.jpg": b"two", "bad.jpg": b"bad"})
    commit_chunk(db, first, [bad(i) if i.path == b"bad.jpg" else seen(first, i) for i in first.images])
    job, second = lease_of(db, tmp_path / "b", {"x.jpg": b"two", "y.jpg": b"new", "z.jpg": b"bad"})
    known = find_known(db, second, LIMIT)
    assert names(second, known.outcomes) == ["x.jpg"]  # a failure is never taken over
    outcome = next(iter(known.outcomes.values()))
    assert outcome == replace(outcome, outcome="ok", faces=(face(),), cached=True)
    classified = [seen(second, image) for image in known.rest(second)]
    commit_chunk(db, second, [*known.outcomes.values(), *classified, *known.copied(classified)])
    assert assert_exact(db, job).cached == 1


def test_unreadable_and_huge_files_are_left_to_the_engine(db: Database, tmp_path: Path) -> None:
    _, lease = lease_of(db, tmp_path / "a", {"a.jpg": b"same", "b.jpg": b"same", "gone.jpg": b"same"})
    (tmp_path / "a" / "gone.jpg").unlink()
    assert len(find_known(db, lease, LIMIT).rest(lease)) == 2
    assert len(find_known(db, lease, 3).rest(lease)) == 3
