"""Submission, cancel, retry and delete: what a client may ask of a job, and when."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.database import Database
from mien.errors import ConflictError, NotFoundError, UnprocessableError
from mien.jobs import get_job, list_jobs, request_cancel, request_retry
from mien.keys import any_key, authenticate, create_key, list_keys, revoke_key
from mien.ledger.cache import look_up, may_have
from mien.ledger.commit import ImageOutcome, commit_chunk
from mien.ledger.lease import LeasedImage, hand_back, renew_chunk, take_chunk
from mien.ledger.submit import submit
from mien.ledger.work import fail_job
from mien.receipts import request_delete
from mien.schema import metadata
from tests.support.ledger import (
    assert_exact,
    bad,
    control,
    expanded_job,
    face,
    make_files,
    new_job,
    ok,
    taker,
    work_off,
)


def test_one_key_makes_one_job(db: Database, tmp_path: Path) -> None:
    answers: list[tuple[str, bool]] = []
    job = new_job(make_files(tmp_path, 1), idempotency_key="once")
    threads = [threading.Thread(target=lambda: answers.append(submit(db, job))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert len({public_id for public_id, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1


def test_a_key_reused_for_another_request_is_refused(db: Database, tmp_path: Path) -> None:
    submit(db, new_job(tmp_path, idempotency_key="once"))
    with pytest.raises(UnprocessableError) as caught:
        submit(db, new_job(tmp_path, idempotency_key="once", request_hash="1" * 64))
    assert caught.value.code == "idempotency_key_reused"
    submit(db, new_job(tmp_path, idempotency_key="once", owner="another"))  # keys belong to their owner


def test_an_empty_folder_fails_the_job_with_a_reason(db: Database, tmp_path: Path) -> None:
    folder = make_files(tmp_path / "photos", 0)
    (folder / "notes.txt").write_text("no image")
    job, _ = submit(db, new_job(folder))
    control(db).expand()
    row = assert_exact(db, job)
    assert (row.status, row.error_code, row.skipped) == ("failed", "no_images", 1)
    assert "1 other files were skipped" in row.error


def test_a_source_that_is_away_makes_the_job_wait(db: Database, tmp_path: Path) -> None:
    folder = make_files(tmp_path / "share", 3)
    job, _ = submit(db, new_job(folder))
    folder.rename(tmp_path / "unmounted")
    control(db).expand()
    row = assert_exact(db, job)
    assert (row.status, row.notice_code, row.lease_token) == ("queued", "source_away", None)
    (tmp_path / "unmounted").rename(folder)
    control(db).expand()
    assert assert_exact(db, job).status == "running"


def test_names_too_long_for_an_index_are_outcomes_of_their_own(db: Database, tmp_path: Path) -> None:
    from mien.ledger.expand import begin_expansion, finish_expansion, write_slice
    from mien.ledger.work import take_job

    job, _ = submit(db, new_job(tmp_path))
    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    begin_expansion(db, lease)
    long = [b"d" * 1990 + b"/" + str(n).encode() * 20 + b".jpg" for n in range(3)]
    write_slice(db, lease, [*long, b"a.jpg"], 0, 64)
    write_slice(db, lease, [*long, b"a.jpg"], 0, 64)
    finish_expansion(db, lease, None)
    work_off(db)
    row = assert_exact(db, job)
    assert (row.status, row.total, row.ok, row.failed) == ("completed", 4, 1, 3)
    with pytest.raises(ConflictError):
        request_cancel(db, "local", job)


def test_cancel_keeps_what_is_done(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 30)
    work_off(db, limit=2)
    held = take_chunk(db, taker(), 60)
    assert held is not None
    request_cancel(db, "local", job)
    control(db).purge()
    row = assert_exact(db, job)
    assert (row.status, row.ok, row.cancelled, row.pending) == ("cancelling", 8, 18, 4)
    assert take_chunk(db, taker(), 60) is None
    assert renew_chunk(db, held, 60) is False  # so the worker learns of it
    hand_back(db, held)
    control(db).purge()
    row = assert_exact(db, job)
    assert (row.status, row.ok, row.cancelled) == ("cancelled", 8, 22)
    assert request_cancel(db, "local", job).status == "cancelled"


def test_a_chunk_committed_after_the_cancel_counts(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4)
    held = take_chunk(db, taker(), 60)
    assert held is not None
    request_cancel(db, "local", job)
    control(db).purge()
    assert commit_chunk(db, held, [ok(image) for image in held.images]) == "cancelled"
    assert assert_exact(db, job).ok == 4


def test_cancel_before_expansion(db: Database, tmp_path: Path) -> None:
    job, _ = submit(db, new_job(make_files(tmp_path, 3)))
    request_cancel(db, "local", job)
    control(db).expand()
    control(db).purge()
    row = assert_exact(db, job)
    assert (row.status, row.total) == ("cancelled", 0)


def test_retry_takes_the_failed_images_again(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 10)
    with pytest.raises(ConflictError):
        request_retry(db, "local", job)
    work_off(db, lambda image: bad(image) if image.path < b"00003" else ok(image))
    assert assert_exact(db, job).failed == 3
    assert request_retry(db, "local", job).status == "queued"
    assert request_retry(db, "local", job).status == "queued"
    control(db, chunk_size=2).expand()
    row = assert_exact(db, job)
    assert (row.status, row.pending, row.failed) == ("running", 3, 0)
    assert sorted(len(lease.images) for lease in work_off(db)) == [1, 2]
    row = assert_exact(db, job)
    assert (row.status, row.ok, row.failed) == ("completed", 10, 0)
    with pytest.raises(ConflictError) as caught:
        request_retry(db, "local", job)
    assert caught.value.code == "job_not_retryable"


def test_a_failed_job_gives_every_pending_image_an_outcome(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 10)
    work_off(db, limit=1)
    fail_job(db, get_job(db, "local", job).id, "model_missing", "The model is gone.")
    control(db).purge()
    row = assert_exact(db, job)
    assert (row.status, row.ok, row.failed, row.pending) == ("failed", 4, 6, 0)
    request_retry(db, "local", job)
    control(db).expand()
    work_off(db)
    assert assert_exact(db, job).status == "completed"


def test_retry_of_a_failed_expansion_walks_again(db: Database, tmp_path: Path) -> None:
    job, _ = submit(db, new_job(tmp_path))
    control(db).expand()
    assert assert_exact(db, job).status == "failed"
    make_files(tmp_path, 2)
    request_retry(db, "local", job)
    control(db).expand()
    work_off(db)
    row = assert_exact(db, job)
    assert (row.status, row.ok) == ("completed", 2)


def test_delete_deletes_every_row(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 200)
    kept = expanded_job(db, tmp_path / "b", 5)
    work_off(db, limit=20)
    held = take_chunk(db, taker(), 60)
    assert held is not None
    request_delete(db, "local", held.public_id)
    control(db).purge()
    with pytest.raises(NotFoundError):
        get_job(db, "local", held.public_id)
    request_delete(db, "local", job if held.public_id != job else kept)
    control(db).purge()
    with db.read() as connection:
        left = {t.name: connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one()
                for t in metadata.sorted_tables if t.name not in ("usage", "receipts")}  # fmt: skip
    assert not any(left.values()), left


def test_what_belongs_to_another_is_not_there(db: Database, tmp_path: Path) -> None:
    job, _ = submit(db, new_job(tmp_path, owner="ann"))
    with pytest.raises(NotFoundError):
        get_job(db, "bob", job)
    for request in (request_cancel, request_delete, request_retry):
        with pytest.raises(NotFoundError):
            request(db, "bob", job)
    assert list_jobs(db, "bob").items == []


def test_lists_page_newest_first(db: Database, tmp_path: Path) -> None:
    made = [submit(db, new_job(tmp_path))[0] for _ in range(5)]
    first = list_jobs(db, "local", limit=3)
    assert first.next is not None
    rest = list_jobs(db, "local", limit=3, after=first.next)
    assert [job.public_id for job in [*first.items, *rest.items]] == made[::-1]
    assert (first.has_more, rest.has_more) == (True, False)


def test_the_cache_is_of_the_owner_and_dies_with_the_job(db: Database, tmp_path: Path) -> None:
    first = expanded_job(db, tmp_path / "a", 4)
    work_off(db)
    expanded_job(db, tmp_path / "a", 4)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    hashes = [image.path.ljust(32, b"\0") for image in lease.images]
    assert may_have(db, lease)
    found = look_up(db, lease, hashes)
    assert set(found) == set(hashes)
    assert all(outcome.cached and outcome.faces[0].probabilities == (0.7, 0.2, 0.1) for outcome in found.values())
    for stranger in ({"owner": "another"}, {"fingerprint": "e" * 64}):
        other = replace(lease, **stranger)  # type: ignore[arg-type]
        assert not may_have(db, other)
        assert look_up(db, other, hashes) == {}
    request_delete(db, "local", first)
    control(db).purge()
    assert look_up(db, lease, hashes) == {}


def test_the_cache_gives_all_that_was_found(db: Database, tmp_path: Path) -> None:
    given: dict[bytes, ImageOutcome] = {}

    def answer(image: LeasedImage) -> ImageOutcome:
        found = (face(0.7, 0.2, 0.1), face(0.1, 0.3, 0.6, x=20.0)) if image.position else ()
        outcome = replace(
            ok(image), outcome="ok" if found else "no_face", faces=found, file_bytes=1234, format="jpeg",
        )  # fmt: skip
        given[image.path.ljust(32, b"\0")] = replace(outcome, image_id=0, cached=True)
        return outcome

    expanded_job(db, tmp_path / "a", 2)
    work_off(db, answer)
    expanded_job(db, tmp_path / "a", 2)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    assert may_have(db, lease)  # an image without a face is an answer as much as one with faces
    assert look_up(db, lease, list(given)) == given


def test_keys_open_until_they_are_revoked(db: Database) -> None:
    assert not any_key(db)
    info, secret = create_key(db, "laptop", owner="ann")
    assert any_key(db)
    found = authenticate(db, secret)
    assert found is not None and (found.owner, found.scope) == ("ann", "submit")
    assert authenticate(db, secret + "x") is None
    assert secret not in repr(list_keys(db))
    revoke_key(db, info.id)
    assert authenticate(db, secret) is None
    assert not any_key(db)
    with pytest.raises(NotFoundError):
        revoke_key(db, 999)


def test_an_expansion_adds_nothing_to_a_job_that_was_cancelled_meanwhile(db: Database, tmp_path: Path) -> None:
    from mien.ledger.expand import begin_expansion, write_slice
    from mien.ledger.work import JobEndedError, release_job, take_job

    job, _ = submit(db, new_job(make_files(tmp_path / "a", 4)))
    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    begin_expansion(db, lease)
    write_slice(db, lease, [b"00001.jpg"], 0, 4)
    request_cancel(db, "local", job)
    work_off(db)
    with pytest.raises(JobEndedError):
        write_slice(db, lease, [b"00002.jpg"], 0, 4)
    release_job(db, lease)
    control(db).purge()
    row = assert_exact(db, job)
    assert (row.status, row.total, row.cancelled) == ("cancelled", 1, 1)


def test_a_retry_brings_nothing_back_into_a_job_that_was_cancelled_meanwhile(db: Database, tmp_path: Path) -> None:
    from mien.ledger.retry import begin_retry, retry_slice
    from mien.ledger.work import JobEndedError, take_job

    job = expanded_job(db, tmp_path / "a", 4)
    work_off(db, bad)
    request_retry(db, "local", job)
    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    begin_retry(db, lease)
    request_cancel(db, "local", job)
    with pytest.raises(JobEndedError):
        retry_slice(db, lease, 0, 4)
    row = assert_exact(db, job)
    assert (row.failed, row.pending) == (4, 0)
