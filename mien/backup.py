"""Backup and restore: the ledger in one consistent snapshot while everything runs, the uploads, the installed models.

A backup is a folder, or the same in one tar file::

    manifest.json                      what it is, and the SHA-256 of the ledger
    ledger.sqlite3 or ledger.pgdump    the snapshot
    uploads/JOB/..                     uploaded images
    models/..                          installed models beside the shipped one
    erasures.jsonl                     what had been deleted on request by then
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from mien import __version__
from mien.backup_postgres import dump_postgresql, load_postgresql
from mien.database import Database
from mien.erasure import apply_again
from mien.erasure_log import merge_logs
from mien.errors import ConflictError, MienError, UnavailableError
from mien.ledger.restored import is_empty, settle
from mien.migrate import migrate
from mien.models import Model, ModelStore, load_model
from mien.objects import is_objects, store_identity
from mien.schema_version import SCHEMA_VERSION
from mien.settings import Settings
from mien.sources import folder_identity
from mien.uploads import disk_error, uploads_folder, uploads_root

FORMAT = 1
MANIFEST = "manifest.json"
LEDGERS = {"sqlite": "ledger.sqlite3", "postgresql": "ledger.pgdump"}
ERASURES = "erasures.jsonl"


class BackupError(MienError):
    """A backup cannot be made, or is not one."""

    code = "bad_backup"
    title = "The backup cannot be used"


class Manifest(BaseModel):
    """What a backup holds."""

    format: int
    mien_version: str
    schema_version: str
    made_at: dt.datetime
    database: str
    ledger_sha256: str
    uploads: int
    upload_bytes: int
    models: dict[str, str]
    """Installed models, name@revision -> where in the backup; empty for the one that comes with Mien."""
    default_model: str


@dataclass(frozen=True)
class Restored:
    """What a restore brought back."""

    manifest: Manifest
    unfinished: int
    """Jobs that go on here."""
    erased_again: int
    """Deletions that the backup is older than; they are carried out anew."""


def back_up(db: Database, settings: Settings, store: ModelStore, target: Path) -> Manifest:
    """Write a backup of everything that is there now, while it is worked on. ``target``: a folder or ``NAME.tar``.

    Raises:
        ConflictError: ``backup_exists``.
        UnavailableError, NoSpaceError: the database or the disk does not do it.
        BackupError: a tool for PostgreSQL is missing or fails.
    """
    if target.exists():
        raise ConflictError(f"{target} is there already; name another place for the backup.", code="backup_exists")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # beside the target, and in its place only when it is whole
        with tempfile.TemporaryDirectory(prefix=".mien-backup-", dir=target.parent) as unfinished:
            folder = Path(unfinished) / "mien-backup"
            folder.mkdir(mode=0o700)
            manifest = _fill(db, settings, store, folder)
            if target.suffix == ".tar":
                packed = Path(unfinished) / "backup.tar"
                descriptor = os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
                    archive.add(folder, arcname=".")
                    file.flush()
                    os.fsync(file.fileno())
                packed.rename(target)
            else:
                folder.rename(target)
    except OSError as error:
        raise disk_error(error) from None
    return manifest


def _fill(db: Database, settings: Settings, store: ModelStore, folder: Path) -> Manifest:
    kind = "sqlite" if db.is_sqlite else "postgresql"
    ledger = folder / LEDGERS[kind]
    if db.is_sqlite:
        _snapshot_sqlite(db, ledger)
    else:
        dump_postgresql(db, ledger)
    # after the ledger: a file that is not in the snapshot yet is cleared away, one that should be is there
    count, size = _copy_uploads(uploads_root(settings), folder / "uploads")
    if settings.erasures.exists():
        shutil.copyfile(settings.erasures, folder / ERASURES)
    manifest = Manifest(
        format=FORMAT,
        mien_version=__version__,
        schema_version=SCHEMA_VERSION,
        made_at=dt.datetime.now(dt.UTC),
        database=kind,
        ledger_sha256=_sha256(ledger),
        uploads=count,
        upload_bytes=size,
        models=_copy_models(store, folder / "models"),
        default_model=_name(store.default()),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _snapshot_sqlite(db: Database, target: Path) -> None:
    """One read transaction: writers go on meanwhile, and nothing that was deleted is in the copy."""
    try:
        with sqlite3.connect(str(db.url.database), timeout=60, isolation_level=None) as ledger:
            ledger.execute("VACUUM INTO ?", (str(target),))
        ledger.close()
    except sqlite3.Error as error:
        raise UnavailableError(f"The ledger cannot be copied just now ({error}).") from None
    target.chmod(0o600)


def _copy_uploads(root: Path, target: Path) -> tuple[int, int]:
    count = size = 0
    for file in sorted(root.rglob("*")) if root.exists() else ():
        if file.is_symlink() or not file.is_file() or file.parent == root:
            continue
        copy = target / file.relative_to(root)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            shutil.copyfile(file, copy)
        except FileNotFoundError:
            continue  # deleted meanwhile
        copy.chmod(0o600)
        count, size = count + 1, size + copy.stat().st_size
    return count, size


def _copy_models(store: ModelStore, target: Path) -> dict[str, str]:
    shipped = load_model(store.shipped).revision if store.shipped is not None else None
    models = {}
    for model in store.list():
        place = "" if model.revision == shipped else f"models/{model.revision}"
        if place:
            shutil.copytree(model.folder, target / model.revision)
        models[_name(model)] = place
    return models


def _name(model: Model) -> str:
    return f"{model.name}@{model.revision}"


def restore(settings: Settings, store: ModelStore, source: Path, *, erasures: Path | None = None) -> Restored:
    """Bring a backup back into the (empty) ledger and data folder of these settings.

    ``erasures``: the erasure log of the Mien that was backed up, as it stands now; by default the one that is here.
    What it lists and the backup still holds is deleted again before anything can be read.

    Raises:
        BackupError: it is no backup, is damaged, or is of another kind of database.
        ConflictError: ``not_empty``, there are jobs here already.
        UnavailableError, NoSpaceError: the database or the disk does not do it.
    """
    with _opened(source) as folder:
        manifest = _manifest(folder)
        kind = "sqlite" if settings.database.startswith("sqlite") else "postgresql"
        if manifest.database != kind:
            raise BackupError(
                f"The backup is of {manifest.database}, and MIEN_DATABASE_URL names {kind}; restore it into the same."
            )
        _check_ledger(folder / LEDGERS[kind], manifest)
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            _load_ledger(settings, folder / LEDGERS[kind], kind)
            if (folder / "uploads").exists():
                shutil.copytree(folder / "uploads", uploads_root(settings), dirs_exist_ok=True)
                uploads_root(settings).chmod(0o700)
            for place in manifest.models.values():
                if place:
                    store.install(_inside(folder, place))
            store.ensure_shipped()
            if manifest.models.get(manifest.default_model):
                store.set_default(manifest.default_model)
            for log in (erasures, folder / ERASURES):
                if log is not None and log.exists():
                    merge_logs(log, settings.erasures)
        except OSError as error:
            raise disk_error(error) from None
    db = Database(settings.database)
    try:
        migrate(db)
        unfinished = settle(db, lambda job: _upload_place(settings, job), lambda path: _identity(settings, path))
        return Restored(manifest, unfinished, apply_again(db, settings))
    finally:
        db.dispose()


def _load_ledger(settings: Settings, ledger: Path, kind: str) -> None:
    db = Database(settings.database)
    try:
        if (kind == "postgresql" or Path(str(db.url.database)).exists()) and not is_empty(db):
            raise ConflictError(
                "There are jobs in this ledger already; a restore would lose them. Name an empty place: MIEN_DATA_DIR "
                "or MIEN_DATABASE_URL.",
                code="not_empty",
            )
        if kind == "postgresql":
            load_postgresql(db, ledger)
            return
        target = Path(str(db.url.database))
    finally:
        db.dispose()
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in (target, target.with_name(f"{target.name}-wal"), target.with_name(f"{target.name}-shm")):
        left.unlink(missing_ok=True)
    shutil.copyfile(ledger, target)
    target.chmod(0o600)


def _upload_place(settings: Settings, job: str) -> tuple[bytes, str]:
    folder = uploads_folder(settings, job)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = os.fsencode(folder)
    return path, folder_identity(path) or ""


def _identity(settings: Settings, path: bytes) -> str | None:
    return store_identity(settings, path) if is_objects(path) else folder_identity(path)


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """The folder of a backup; a tar is unpacked for as long as the block. What it may hold is files and folders."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="mien-restore-") as folder:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(folder, filter="data")  # the filter refuses what leads out
        except (tarfile.TarError, EOFError) as error:
            raise BackupError(f"{source} is not a backup of Mien, or is damaged ({error}).") from None
        yield Path(folder)


def _manifest(folder: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError, ValidationError):
        raise BackupError(f"{folder} holds no backup of Mien: its {MANIFEST} is missing or cannot be read.") from None
    if manifest.format > FORMAT or manifest.database not in LEDGERS:
        raise BackupError(f"The backup was made by a newer Mien ({manifest.mien_version}); install that version.")
    return manifest


def _check_ledger(ledger: Path, manifest: Manifest) -> None:
    if not ledger.exists() or _sha256(ledger) != manifest.ledger_sha256:
        raise BackupError(f"The backup is damaged: {ledger.name} is not the one that was written.")


def _inside(folder: Path, place: str) -> Path:
    path = (folder / place).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BackupError("The backup's manifest names a model outside of it.")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
