"""The erasure log, and what was deleted and comes back with a backup: it is deleted again."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.database import Database
from mien.erasure import apply_again
from mien.erasure_log import Erasure, ErasureLogError, merge_logs, name_hash, read_log, record
from mien.errors import NotFoundError
from mien.jobs import get_job
from mien.ledger.submit import submit
from mien.receipts import get_receipt, request_content, request_delete, request_images
from mien.schema import metadata, receipts
from tests.support.ledger import assert_exact, control, expanded_job, make_files, new_job, work_off

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def erasure(number: int) -> Erasure:
    return Erasure(f"r{number}", NOW, "lab", "job", job=f"j{number}")


def test_what_is_recorded_is_read_and_one_receipt_is_one_erasure(tmp_path: Path) -> None:
    log = tmp_path / "new" / "erasures.jsonl"
    assert list(read_log(log)) == []
    all_kinds = [
        erasure(1),
        Erasure("r2", NOW, "lab", "images", job="j1", files=(name_hash("r2", b"a.jpg"), name_hash("r2", b"\xff"))),
        Erasure("r3", NOW, "lab", "sha256", sha256="0f" * 32),
    ]
    record(log, all_kinds[:1])
    record(log, [*all_kinds, erasure(1)])
    assert list(read_log(log)) == all_kinds
    assert log.stat().st_mode & 0o777 == 0o600
    assert b"a.jpg" not in log.read_bytes()


@pytest.mark.parametrize("left", [1, 30, 60])
def test_a_line_that_was_cut_off_costs_only_itself(tmp_path: Path, left: int) -> None:
    log = tmp_path / "erasures.jsonl"
    record(log, [erasure(1), erasure(2)])
    whole = log.read_bytes()
    first = whole.index(b"\n") + 1
    log.write_bytes(whole[: first + left])
    assert list(read_log(log)) == [erasure(1)]
    record(log, [erasure(3)])
    assert list(read_log(log)) == [erasure(1), erasure(3)]


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "{}",
        '{"v":2,"receipt":"r"}',
        '{"v":1,"receipt":"","at":"2026-03-01T00:00:00+00:00","owner":"o","kind":"job","job":"j"}',
        '{"v":1,"receipt":"r","at":"2026-03-01T00:00:00","owner":"o","kind":"job","job":"j"}',
        '{"v":1,"receipt":"r","at":"2026-03-01T00:00:00+00:00","owner":"o","kind":"all","job":"j"}',
        '{"v":1,"receipt":"r","at":"2026-03-01T00:00:00+00:00","owner":"o","kind":"sha256","sha256":"xyz"}',
    ],
)
def test_a_line_that_is_no_erasure_is_not_passed_over(tmp_path: Path, line: str) -> None:
    log = tmp_path / "erasures.jsonl"
    log.write_text(f"{line}\n")
    with pytest.raises(ErasureLogError, match="line 1"):
        list(read_log(log))


def test_many_may_record_at_once(tmp_path: Path) -> None:
    log = tmp_path / "erasures.jsonl"

    def write(start: int) -> None:
        for number in range(start, start + 25):
            record(log, [erasure(number)])

    threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(read_log(log))) == 100
    with pytest.raises(ErasureLogError, match="cannot be written"):
        record(tmp_path, [erasure(1)])


def test_a_backups_copy_of_the_log_adds_what_is_missing(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    record(ours, [erasure(1), erasure(2)])
    record(theirs, [erasure(2), erasure(3)])
    assert merge_logs(theirs, ours) == 1
    assert list(read_log(ours)) == [erasure(1), erasure(2), erasure(3)]


def copy_of(db: Database) -> dict[str, list[dict[str, object]]]:
    """Every row: a backup, on either database."""
    with db.read() as connection:
        return {t.name: [dict(r._mapping) for r in connection.execute(sa.select(t))] for t in metadata.sorted_tables}


def restore(db: Database, copy: dict[str, list[dict[str, object]]]) -> None:
    """The backup in the place of what is there."""
    with db.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
        for table in metadata.sorted_tables:
            if copy[table.name]:
                connection.execute(table.insert(), copy[table.name])


def test_what_a_backup_brings_back_is_deleted_again(db: Database, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tools = control(db, data_dir=data)
    whole, single, content, kept = (expanded_job(db, tmp_path / n, 4) for n in ("whole", "single", "content", "kept"))
    odd, _ = submit(db, new_job(make_files(tmp_path / "odd", 0)))
    Path(str(tmp_path / "odd") + "/bytes\udcff.jpg").write_bytes(b"")
    (tmp_path / "odd" / "kept.jpg").write_bytes(b"")
    tools.expand()
    work_off(db)
    backup = copy_of(db)
    asked = [
        request_delete(db, "local", whole),
        request_images(db, "local", single, ["00001.jpg", "00002.jpg"]),
        request_content(db, "local", b"00003.jpg".ljust(32, b"\0").hex()),
        request_images(db, "local", odd, ["bytes\\xff.jpg"]),
    ]
    tools.purge()
    done = {receipt.public_id: get_receipt(db, "local", receipt.public_id).counts for receipt in asked}
    tools.sweep()
    assert [found.receipt for found in read_log(data / "erasures.jsonl")] == [receipt.public_id for receipt in asked]
    assert b".jpg" not in (data / "erasures.jsonl").read_bytes()

    restore(db, backup)
    assert get_job(db, "local", whole).status == "completed"
    assert apply_again(db, tools.settings) == 4
    assert get_job(db, "local", whole).status == "deleting"  # nobody reads it from here on
    assert apply_again(db, tools.settings) == 0
    tools.purge()
    with pytest.raises(NotFoundError):
        get_job(db, "local", whole)
    for receipt in asked:
        again = get_receipt(db, "local", receipt.public_id)
        assert again.finished_at is not None
        assert (again.kind, again.counts) == (receipt.kind, done[receipt.public_id])
    assert assert_exact(db, single).total == 1  # two by name, one by content
    assert assert_exact(db, content).total == 3
    assert assert_exact(db, kept).total == 3
    assert assert_exact(db, odd).total == 1


def test_it_needs_no_command_the_first_sweep_of_a_process_does_it(db: Database, tmp_path: Path) -> None:
    data = tmp_path / "data"
    job = expanded_job(db, tmp_path / "a", 4)
    backup = copy_of(db)
    request_delete(db, "local", job)
    tools = control(db, data_dir=data)
    tools.purge()
    restore(db, backup)
    control(db, data_dir=data).sweep()
    assert get_job(db, "local", job).status == "deleting"


def test_a_deletion_before_the_folder_was_read_waits_for_it(db: Database, tmp_path: Path) -> None:
    tools = control(db, data_dir=tmp_path / "data")
    job, _ = submit(db, new_job(make_files(tmp_path / "a", 3)))
    backup = copy_of(db)
    tools.expand()
    receipt = request_images(db, "local", job, ["00001.jpg"])
    tools.purge()
    restore(db, backup)
    apply_again(db, tools.settings)
    tools.purge()
    assert get_receipt(db, "local", receipt.public_id).finished_at is None
    tools.expand()
    tools.purge()
    assert get_receipt(db, "local", receipt.public_id).finished_at is not None
    assert assert_exact(db, job).total == 2


def test_of_a_job_that_the_backup_does_not_know_nothing_is_left_to_do(db: Database, tmp_path: Path) -> None:
    tools = control(db, data_dir=tmp_path / "data")
    backup = copy_of(db)
    receipt = request_delete(db, "local", expanded_job(db, tmp_path / "a", 2))
    tools.purge()
    restore(db, backup)
    assert apply_again(db, tools.settings) == 1
    assert get_receipt(db, "local", receipt.public_id).finished_at is not None


def test_receipts_that_are_done_hold_no_names(db: Database, tmp_path: Path) -> None:
    tools = control(db, data_dir=tmp_path / "data")
    job = expanded_job(db, tmp_path / "a", 3)
    receipt = request_images(db, "local", job, ["00001.jpg"])
    assert receipt.files == ["00001.jpg"]
    tools.purge()
    assert get_receipt(db, "local", receipt.public_id).files is None
    with db.read() as connection:
        assert "00001" not in connection.execute(sa.select(receipts.c.target)).scalar_one()


def test_a_log_that_cannot_be_written_holds_up_no_deletion(db: Database, tmp_path: Path) -> None:
    log = tmp_path / "data" / "erasures.jsonl"
    log.mkdir(parents=True)
    tools = control(db, data_dir=tmp_path / "data")
    job = expanded_job(db, tmp_path / "a", 3)
    receipt = request_images(db, "local", job, ["00001.jpg"])
    tools.purge()
    assert get_receipt(db, "local", receipt.public_id).finished_at is not None
    assert assert_exact(db, job).total == 2
    shutil.rmtree(log)
    tools.sweep()  # and it is made up for
    (found,) = read_log(log)
    assert found.files == (name_hash(receipt.public_id, b"00001.jpg"),)
    assert json.loads(log.read_text())["job"] == job
    assert get_receipt(db, "local", receipt.public_id).files is None
