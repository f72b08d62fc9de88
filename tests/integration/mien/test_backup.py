"""Good backups restore; those that are damaged, of another kind, or would overwrite something are refused."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.backup import BackupError, Manifest, Restored, back_up, restore
from mien.database import Database
from mien.erasure import record_erasures
from mien.errors import ConflictError, UnprocessableError
from mien.ledger.lease import take_chunk
from mien.migrate import migrate
from mien.models import ModelStore
from mien.receipts import request_delete
from mien.schema import chunks, jobs, workers
from mien.settings import Settings
from tests.support.ledger import assert_exact, expanded_job, taker, work_off
from tests.support.web import make_settings


def _place(folder: Path) -> tuple[Settings, ModelStore, Database]:
    settings = make_settings(folder)
    db = Database(settings.database)
    migrate(db)
    return settings, ModelStore(settings.models), db


def _back_up(folder: Path, target: Path) -> tuple[Settings, Database, str, Manifest]:
    settings, store, db = _place(folder)
    job = expanded_job(db, folder / "photos" / "a", 12, chunk_size=4)
    work_off(db, limit=1)
    assert take_chunk(db, taker("left behind"), 3600) is not None
    return settings, db, job, back_up(db, settings, store, target)


def _restore(folder: Path, backup: Path, erasures: Path | None = None) -> tuple[Settings, Restored]:
    settings = Settings(data_dir=folder / "data", model="tiny")
    return settings, restore(settings, ModelStore(settings.models), backup, erasures=erasures)


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_a_backup_in_mid_work_goes_on_elsewhere(tmp_path: Path, name: str) -> None:
    _, _, job, manifest = _back_up(tmp_path / "one", tmp_path / name)
    assert list(manifest.models.values()) != [""]
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o077 == 0
    settings, done = _restore(tmp_path / "other", tmp_path / name)
    assert (done.unfinished, done.erased_again) == (1, 0)
    db = Database(settings.database)
    assert ModelStore(settings.models).get("tiny").name == "tiny"
    with db.read() as connection:
        assert connection.execute(sa.select(chunks.c.losses)).scalars().all() == [0, 0, 0]
        assert connection.execute(sa.select(sa.func.count()).select_from(workers)).scalar_one() == 0
    assert len(work_off(db)) == 2  # the chunk of the worker that stayed behind, and the last one
    assert assert_exact(db, job).status == "completed"
    db.dispose()


def test_a_folder_that_is_not_there_yet_is_taken_when_it_comes(tmp_path: Path) -> None:
    _back_up(tmp_path / "one", tmp_path / "backup")
    folder = tmp_path / "one" / "photos" / "a"
    away = folder.rename(folder.with_name("b"))
    settings, _ = _restore(tmp_path / "other", tmp_path / "backup")
    db = Database(settings.database)
    with db.read() as connection:
        assert connection.execute(sa.select(jobs.c.source_identity)).scalar_one() is None
    away.rename(folder)
    lease = take_chunk(db, taker(), 60)
    assert lease is not None
    db.dispose()


def test_what_was_deleted_since_is_deleted_again(tmp_path: Path) -> None:
    settings, db, job, _ = _back_up(tmp_path / "one", tmp_path / "backup")
    request_delete(db, "local", job)
    record_erasures(db, settings)
    db.dispose()
    restored, done = _restore(tmp_path / "other", tmp_path / "backup", settings.erasures)
    assert done.erased_again == 1
    db = Database(restored.database)
    with db.read() as connection:
        assert connection.execute(sa.select(jobs.c.status)).scalar_one() == "deleting"
    db.dispose()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    settings, db, _, _ = _back_up(tmp_path / "one", tmp_path / "backup")
    with pytest.raises(ConflictError, match="is there already"):
        back_up(db, settings, ModelStore(settings.models), tmp_path / "backup")
    with pytest.raises(ConflictError, match="There are jobs in this ledger"):
        restore(settings, ModelStore(settings.models), tmp_path / "backup")
    db.dispose()


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    _back_up(tmp_path / "one", tmp_path / "backup")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no tar")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "text.tar", arcname="../../outside")
    for place in ("empty", "text.tar", "evil.tar"):
        with pytest.raises(BackupError):
            _restore(tmp_path / "other", tmp_path / place)
    assert not (tmp_path.parent / "outside").exists()
    ledger = tmp_path / "backup" / "ledger.sqlite3"
    os.truncate(ledger, ledger.stat().st_size - 1)
    with pytest.raises(BackupError, match="damaged"):
        _restore(tmp_path / "other", tmp_path / "backup")
    manifest = tmp_path / "backup" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sqlite"', '"postgresql"'))
    with pytest.raises(BackupError, match="restore it into the same"):
        _restore(tmp_path / "other", tmp_path / "backup")


@pytest.mark.postgres
def test_without_postgresqls_tools_the_way_out_is_told(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(tmp_path, database_url=postgres_url)
    db = Database(settings.database)
    migrate(db)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnprocessableError, match=r"pg_dump is not on the PATH.*postgresql-client"):
        back_up(db, settings, ModelStore(settings.models), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    db.dispose()
