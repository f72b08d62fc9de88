"""Single images and contents are erased: exact counters, no late commit, no file, and a receipt that says how much."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.control import Control
from mien.database import Database
from mien.errors import LeaseLostError, NotFoundError
from mien.jobs import get_job, request_cancel, request_retry
from mien.ledger.cache import look_up
from mien.ledger.commit import commit_chunk
from mien.ledger.drafts import Arrived
from mien.ledger.lease import ChunkLease, renew_chunk, take_chunk
from mien.ledger.submit import submit
from mien.ledger.work import release_job, take_job
from mien.receipts import (
    Receipt,
    get_receipt,
    list_receipts,
    request_content,
    request_delete,
    request_images,
)
from mien.results import results_page
from mien.schema import chunks, corrections, images, jobs, review_faces, reviews, uploads
from mien.settings import Settings
from mien.uploads import new_folder, store, uploads_folder
from tests.support.ledger import assert_exact, bad, control, expanded_job, make_files, new_job, ok, taker, work_off


def files_of(db: Database, job: str) -> set[bytes]:
    with db.read() as connection:
        return set(
            connection.execute(
                sa.select(images.c.path).join(jobs, jobs.c.id == images.c.job_id).where(jobs.c.public_id == job)
            ).scalars()
        )


def erased(db: Database, receipt: Receipt) -> Receipt:
    """Let control do it."""
    control(db).purge()
    return get_receipt(db, "local", receipt.public_id)


def correct_all(db: Database) -> None:
    """A person has corrected one face of every image, in a review of its job that drew it."""
    with db.write() as connection:
        now = db.now(connection)
        made: dict[int, int] = {}
        for image in connection.execute(sa.select(images.c.id, images.c.job_id)).all():
            if image.job_id not in made:
                made[image.job_id] = connection.execute(
                    reviews.insert()
                    .values(
                        public_id=f"r{image.job_id}", job_id=image.job_id, owner="local", mode="check", strata=[],
                        created_at=now,
                    )
                    .returning(reviews.c.id)
                ).scalar_one()  # fmt: skip
            review = made[image.job_id]
            connection.execute(
                review_faces.insert().values(
                    review_id=review, place=image.id, image_id=image.id, face_number=0, stratum=0
                )
            )
            connection.execute(
                corrections.insert().values(
                    review_id=review, image_id=image.id, face_number=0, owner="local", mode="check", rater="A",
                    emotion="sad", created_at=now,
                )
            )  # fmt: skip


def test_single_images_go_with_all_that_hangs_on_them(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 10)
    kept = expanded_job(db, tmp_path / "b", 10)
    work_off(db, lambda image: bad(image) if image.path == b"00003.jpg" else ok(image))
    correct_all(db)
    ended = assert_exact(db, job).completed_at
    asked = request_images(db, "local", job, ["00002.jpg", "00003.jpg", "00002.jpg"])
    assert (asked.finished_at, asked.counts["images"]) == (None, 0)
    receipt = erased(db, asked)
    assert receipt.finished_at is not None
    assert receipt.counts == {"jobs": 0, "images": 2, "faces": 1, "corrections": 2, "uploads": 0}
    assert (asked.kind, asked.job, asked.files) == ("images", job, ["00002.jpg", "00003.jpg"])
    assert receipt.files is None  # what is done names nothing that is to be forgotten
    row = assert_exact(db, job)
    assert (row.status, row.total, row.ok, row.failed, row.faces) == ("completed", 8, 8, 0, 8)
    assert row.completed_at == ended
    assert assert_exact(db, kept).total == 10
    page = results_page(db, get_job(db, "local", job), limit=100)
    assert {item["file"] for item in page.items} == {f"{n:05d}.jpg" for n in range(10) if n not in (2, 3)}
    again = erased(db, receipt)
    assert again == receipt


def test_all_that_are_named_or_none(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 3)
    for owner, names, code in [
        ("local", ["00001.jpg", "nothing.jpg"], "unknown_image"),
        ("another", ["00001.jpg"], "unknown_job"),
    ]:
        with pytest.raises(NotFoundError) as caught:
            request_images(db, owner, job, names)
        assert caught.value.code == code
    assert list_receipts(db, "local").items == []
    assert assert_exact(db, job).total == 3
    mine = request_images(db, "local", job, ["00001.jpg"])
    with pytest.raises(NotFoundError) as caught:
        get_receipt(db, "another", mine.public_id)
    assert caught.value.code == "unknown_receipt"


def names(lease: ChunkLease) -> list[str]:
    return [image.path.decode() for image in lease.images]


def test_an_image_in_a_workers_hands_is_taken_out_of_them(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 8)
    held = take_chunk(db, taker(), 60)
    assert held is not None
    receipt = erased(db, request_images(db, "local", job, names(held)[1:2]))
    assert receipt.counts["images"] == 1
    assert renew_chunk(db, held, 60) is False
    with pytest.raises(LeaseLostError):
        commit_chunk(db, held, [ok(image) for image in held.images])
    row = assert_exact(db, job)
    assert (row.total, row.pending) == (7, 7)
    work_off(db)
    row = assert_exact(db, job)
    assert (row.status, row.ok) == ("completed", 7)
    assert held.images[1].path not in files_of(db, job)
    with db.read() as connection:  # it was not the worker's fault
        assert connection.execute(sa.select(sa.func.sum(chunks.c.losses))).scalar_one() == 0


def test_the_last_images_of_a_chunk_and_of_a_job_end_it(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 6)
    (first,) = work_off(db, limit=1)
    held = take_chunk(db, taker(), 60)
    assert held is not None
    erased(db, request_images(db, "local", job, names(held)))
    row = assert_exact(db, job)
    assert (row.status, row.total, row.pending) == ("completed", 4, 0)
    with pytest.raises(LeaseLostError):
        commit_chunk(db, held, [ok(image) for image in held.images])
    assert take_chunk(db, taker(), 60) is None
    erased(db, request_images(db, "local", job, names(first)))
    assert (assert_exact(db, job).total, assert_exact(db, job).status) == (0, "completed")
    assert request_delete(db, "local", job).kind == "job"
    control(db).purge()


def test_names_that_are_not_utf8_are_named_as_results_show_them(db: Database, tmp_path: Path) -> None:
    folder = make_files(tmp_path / "a", 1)
    (folder / "back\\slash.jpg").write_bytes(b"")
    Path(str(folder) + "/bytes\udcff.jpg").write_bytes(b"")
    job, _ = submit(db, new_job(folder))
    control(db).expand()
    receipt = erased(db, request_images(db, "local", job, ["bytes\\xff.jpg", "back\\slash.jpg"]))
    assert receipt.counts["images"] == 2
    assert files_of(db, job) == {b"00000.jpg"}


def test_while_the_folder_is_read_the_deletion_waits(db: Database, tmp_path: Path) -> None:
    from mien.ledger.expand import begin_expansion, finish_expansion, write_slice
    from mien.ledger.work import take_job

    job, _ = submit(db, new_job(make_files(tmp_path, 4)))
    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    begin_expansion(db, lease)
    write_slice(db, lease, [b"00000.jpg", b"00001.jpg"], 0, 4)
    receipt = erased(db, request_images(db, "local", job, ["00001.jpg"]))
    assert (receipt.finished_at, assert_exact(db, job).total) == (None, 2)
    write_slice(db, lease, [b"00000.jpg", b"00001.jpg", b"00002.jpg"], 0, 4)  # the walk begins anew after a crash
    finish_expansion(db, lease, None)
    assert erased(db, receipt).finished_at is not None
    assert files_of(db, job) == {b"00000.jpg", b"00002.jpg"}
    assert_exact(db, job)


def test_a_content_goes_from_all_jobs_of_its_owner_and_from_the_cache(db: Database, tmp_path: Path) -> None:
    mine = [expanded_job(db, tmp_path / name, 6) for name in ("a", "b")]
    others = expanded_job(db, tmp_path / "c", 6, owner="another")
    work_off(db)
    digest = b"00002.jpg".ljust(32, b"\0")
    receipt = erased(db, request_content(db, "local", digest.hex().upper()))
    assert receipt.finished_at is not None
    assert receipt.counts == {"jobs": 0, "images": 2, "faces": 2, "corrections": 0, "uploads": 0}
    assert receipt.sha256 == digest.hex()
    for job in mine:
        assert (assert_exact(db, job).total, b"00002.jpg" in files_of(db, job)) == (5, False)
    assert assert_exact(db, others).total == 6
    expanded_job(db, tmp_path / "a", 6)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    assert set(look_up(db, lease, [digest, b"00001.jpg".ljust(32, b"\0")])) == {b"00001.jpg".ljust(32, b"\0")}


def test_a_content_waits_for_the_jobs_that_may_still_come_upon_it(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 8)
    receipt = erased(db, request_content(db, "local", b"00002.jpg".ljust(32, b"\0").hex()))
    assert (receipt.finished_at, receipt.counts["images"]) == (None, 0)
    work_off(db)
    receipt = erased(db, receipt)
    assert receipt.finished_at is not None
    assert receipt.counts["images"] == 1
    assert assert_exact(db, job).total == 7
    nothing = erased(db, request_content(db, "local", "0" * 64))
    assert nothing.finished_at is not None
    assert not any(nothing.counts.values())


def test_a_content_waits_for_the_images_of_a_cancelled_job_that_are_still_in_work(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4)
    held = take_chunk(db, taker(), 60)
    assert held is not None
    request_cancel(db, "local", job)
    receipt = erased(db, request_content(db, "local", b"00002.jpg".ljust(32, b"\0").hex()))
    assert (receipt.finished_at, receipt.counts["images"]) == (None, 0)
    assert commit_chunk(db, held, [ok(image) for image in held.images]) == "cancelled"
    receipt = erased(db, receipt)
    assert receipt.finished_at is not None
    assert (receipt.counts["images"], assert_exact(db, job).total) == (1, 3)


def test_a_receipt_is_finished_when_its_own_images_are_gone(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4)
    waiting = request_content(db, "local", "0" * 64)  # nobody has read the images yet
    assert erased(db, request_images(db, "local", job, ["00001.jpg"])).finished_at is not None
    assert get_receipt(db, "local", waiting.public_id).finished_at is None


def test_the_images_of_a_job_that_is_being_deleted_count_on_its_own_receipt(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 4)
    work_off(db)
    whole = request_delete(db, "local", job)
    lease = take_job(db, "another", 60, purge=True)
    assert lease is not None
    content = erased(db, request_content(db, "local", b"00002.jpg".ljust(32, b"\0").hex()))
    assert content.counts["images"] == 0
    release_job(db, lease)
    assert erased(db, whole).counts["images"] == 4


def test_a_deleted_job_has_a_receipt_too_and_asking_again_gives_the_same(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 200, chunk_size=4)
    work_off(db)
    correct_all(db)
    first = request_delete(db, "local", job)
    assert request_delete(db, "local", job).public_id == first.public_id
    receipt = erased(db, first)
    assert receipt.counts == {"jobs": 1, "images": 200, "faces": 200, "corrections": 200, "uploads": 0}
    assert receipt.finished_at is not None
    with pytest.raises(NotFoundError):
        request_delete(db, "local", job)
    assert [found.public_id for found in list_receipts(db, "local").items] == [first.public_id]
    waiting = request_images(db, "local", expanded_job(db, tmp_path / "b", 2), ["00000.jpg"])
    request_delete(db, "local", waiting.job or "")
    assert erased(db, waiting).finished_at is not None


def upload_job(db: Database, settings: Settings, names: list[str], **changes: object) -> str:
    """A submitted job of uploads, all of them different but for the last two."""
    from io import BytesIO

    with new_folder(settings) as folder:
        arrived: list[Arrived] = []
        for number, name in enumerate(names):
            content = b"the same" if number >= len(names) - 2 else name.encode()
            arrived.append(store(settings, folder.public_id, name.encode(), BytesIO(content), limit=1000))
        job = new_job(
            Path("/"), source_type="upload", source_path=folder.path, source_identity=folder.identity, **changes
        )
        submit(db, job, public_id=folder.public_id, uploaded=arrived)
        folder.kept = True
    return folder.public_id


def stored(settings: Settings, job: str) -> int:
    return sum(path.is_file() for path in uploads_folder(settings, job).rglob("*"))


def test_uploads_go_with_their_images(db: Database, tmp_path: Path) -> None:
    tools = control(db, data_dir=tmp_path / "data")
    job = upload_job(db, tools.settings, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    tools.expand()
    receipt = request_images(db, "local", job, ["a.jpg"])
    content = request_content(db, "local", hashlib.sha256(b"the same").hexdigest())
    tools.purge()  # nothing was classified yet: the uploads know their content
    work_off(db)
    tools.purge()
    assert get_receipt(db, "local", receipt.public_id).counts["uploads"] == 1
    done = get_receipt(db, "local", content.public_id)
    assert (done.counts["images"], done.counts["uploads"], done.finished_at is not None) == (2, 2, True)
    row = assert_exact(db, job)
    assert (row.total, row.upload_files, row.upload_bytes) == (1, 1, len("b.jpg"))
    assert stored(tools.settings, job) == 1
    request_delete(db, "local", job)
    tools.purge()
    assert not uploads_folder(tools.settings, job).exists()


def test_retention_has_two_clocks_from_the_end_of_the_job(db: Database, tmp_path: Path) -> None:
    tools = control(db, data_dir=tmp_path / "data")
    kept = upload_job(db, tools.settings, ["a.jpg", "b.jpg"])
    short = upload_job(db, tools.settings, ["a.jpg", "b.jpg"], keep_images_s=100, keep_results_s=1000)
    tools.expand()
    age(db, 10_000)
    tools.sweep()
    assert stored(tools.settings, short) == 2  # it has not ended
    work_off(db)
    age(db, 50)
    tools.sweep()
    assert stored(tools.settings, short) == 2
    age(db, 51)
    tools.sweep()
    row = assert_exact(db, short)
    assert (stored(tools.settings, short), row.upload_files, row.ok) == (0, 0, 2)
    with db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).where(uploads.c.job_id == row.id)).scalar_one() == 0
    age(db, 900)
    tools.sweep()
    tools.purge()
    with pytest.raises(NotFoundError):
        get_job(db, "local", short)
    (receipt,) = list_receipts(db, "local").items
    assert (receipt.kind, receipt.reason, receipt.job, receipt.counts["images"]) == ("job", "retention", short, 2)
    assert stored(tools.settings, kept) == 2


def age(db: Database, seconds: float) -> None:
    """So many seconds pass for every job."""
    names = ("completed_at", "failed_at", "cancelled_at", "created_at")
    with db.write() as connection:
        for row in connection.execute(sa.select(jobs)).all():
            times = {name: row._mapping[name] for name in names if row._mapping[name]}
            earlier = {name: time - dt.timedelta(seconds=seconds) for name, time in times.items()}
            connection.execute(jobs.update().where(jobs.c.id == row.id).values(earlier))


def test_a_job_whose_uploads_are_gone_is_not_retried(db: Database, tmp_path: Path) -> None:
    from mien.errors import ConflictError

    tools = control(db, data_dir=tmp_path / "data")
    job = upload_job(db, tools.settings, ["a.jpg", "b.jpg"], keep_images_s=0)
    tools.expand()
    work_off(db, bad)
    tools.sweep()
    with pytest.raises(ConflictError) as caught:
        request_retry(db, "local", job)
    assert caught.value.code == "images_gone"


def test_erasing_beside_workers_retries_and_cancels_stays_exact(db: Database, tmp_path: Path) -> None:
    job = expanded_job(db, tmp_path / "a", 120, chunk_size=5)
    tools: Control = control(db, chunk_size=3)
    done = threading.Event()
    troubles: list[BaseException] = []

    def work() -> None:
        while not done.is_set():
            lease = take_chunk(db, taker(), 60)
            if lease is None:
                done.wait(0.01)
                continue
            try:
                commit_chunk(db, lease, [bad(i) if i.path[4:5] in b"05" else ok(i) for i in lease.images])
            except LeaseLostError:
                continue
            except BaseException as error:
                troubles.append(error)
                raise

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(0, 120, 7):
            request_images(db, "local", job, [f"{number:05d}.jpg"])
            tools.purge()
            if number % 21 == 0 and get_job(db, "local", job).is_final:
                request_retry(db, "local", job)
                tools.expand()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    tools.purge()
    assert troubles == []
    assert all(receipt.counts["images"] == 1 for receipt in list_receipts(db, "local", limit=100).items)
    work_off(db)
    row = assert_exact(db, job)
    assert row.total == 120 - len(range(0, 120, 7))
    if not get_job(db, "local", job).is_final:
        request_cancel(db, "local", job)
