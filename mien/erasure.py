"""Control's part in deleting single images and contents: file by file and slice by slice, until a receipt is done."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mien.database import Database
from mien.erased_names import paths_hashed, paths_named
from mien.erasure_log import ErasureLogError, read_log, record
from mien.faults import fault_point
from mien.ledger.erase import (
    Wanted,
    erase_slice,
    finish_if_done,
    forget_some,
    image_ids,
    is_expanding,
    jobs_to_search,
    some_uploads,
)
from mien.ledger.replay import as_erasure, forget_names, mark_recorded, reopen, unrecorded
from mien.schema import jobs, receipts
from mien.settings import Settings
from mien.thumbnails import remove_thumbnails
from mien.uploads import remove_files, uploads_folder

log = logging.getLogger(__name__)


def open_erasures(db: Database) -> list[sa.Row[Any]]:
    """The receipts of images and contents that are not done yet, oldest first."""
    with db.read() as connection:
        return list(
            connection.execute(
                sa.select(receipts)
                .where(receipts.c.finished_at.is_(None), receipts.c.kind.in_(("images", "sha256")))
                .order_by(receipts.c.id)
            )
        )


def record_erasures(db: Database, settings: Settings) -> None:
    """Put the receipts that are not there yet into the erasure log. What cannot be written is tried again."""
    while rows := unrecorded(db):
        with db.read() as connection:
            erasures = [as_erasure(connection, row) for row in rows]
        try:
            record(settings.erasures, erasures)
        except ErasureLogError as error:
            log.error("%s", error)
            return
        ids = [row.id for row in rows]
        mark_recorded(db, ids)
        forget_names(db, ids)


def apply_again(db: Database, settings: Settings) -> int:
    """Delete anew what this database, come out of a backup, still holds of what was deleted; gives how many receipts
    were opened. Nothing of those jobs can be read from here on; control does the rest.

    Raises:
        ErasureLogError: the erasure log cannot be read.
    """
    opened = reopen(db, list(read_log(settings.erasures)))
    if opened:
        log.warning("%d deletions are carried out again: the database is older than they are", opened)
    return opened


@dataclass(frozen=True)
class Eraser:
    """The tools of a control process that erases."""

    db: Database
    settings: Settings
    is_stopping: Callable[[], bool]

    def carry_out(self) -> None:
        """Do what receipts are open for. What has to wait, for a job that is still expanding, is left open."""
        record_erasures(self.db, self.settings)
        for receipt in open_erasures(self.db):
            if self.is_stopping():
                return
            target = json.loads(receipt.target)
            try:
                if receipt.kind == "sha256":
                    self._content(receipt, bytes.fromhex(target["sha256"]))
                else:
                    self._images(receipt, target["job"], target.get("files"), target.get("hashes", ()))
                    forget_names(self.db, [receipt.id])
            except OSError as error:
                log.error("an upload of receipt %s cannot be deleted: %s; it is tried again", receipt.public_id, error)

    def _content(self, receipt: sa.Row[Any], sha256: bytes) -> None:
        wanted = Wanted(sha256=sha256)
        for job_id in jobs_to_search(self.db, receipt.owner, sha256):
            self._in_job(receipt.id, job_id, wanted)
        finish_if_done(self.db, receipt.id, receipt.owner, None, wanted)

    def _images(self, receipt: sa.Row[Any], job: str, names: list[str] | None, hashes: Collection[str]) -> None:
        with self.db.read() as connection:
            job_id = connection.execute(
                sa.select(jobs.c.id).where(
                    jobs.c.owner == receipt.owner, jobs.c.public_id == job, jobs.c.status != "deleting"
                )
            ).scalar_one_or_none()
            paths = [] if job_id is None or names is None else paths_named(connection, job_id, names)
        if job_id is not None and names is None:  # the receipt came out of the erasure log
            paths = paths_hashed(self.db, receipt.public_id, job_id, hashes)
        wanted = Wanted(paths=tuple(paths))
        if job_id is not None:
            self._in_job(receipt.id, job_id, wanted)
        finish_if_done(self.db, receipt.id, receipt.owner, job_id, wanted)

    def _in_job(self, receipt_id: int, job_id: int, wanted: Wanted) -> None:
        with self.db.read() as connection:
            public_id = connection.execute(sa.select(jobs.c.public_id).where(jobs.c.id == job_id)).scalar_one_or_none()
            if public_id is None or is_expanding(connection, job_id):
                return
        while not self.is_stopping():
            with self.db.read() as connection:
                doomed = image_ids(connection, job_id, wanted)
            remove_thumbnails(self.settings, public_id, doomed)
            if not erase_slice(self.db, receipt_id, job_id, wanted):
                break
            remove_thumbnails(self.settings, public_id, doomed)  # one that was being made meanwhile
            fault_point("erasing")
        while not self.is_stopping() and (gone := some_uploads(self.db, job_id, wanted)):
            # the files first: a crash in between is taken up again, because the rows are still there
            remove_files(uploads_folder(self.settings, public_id), [row.stored_name for row in gone])
            forget_some(self.db, receipt_id, job_id, gone)
