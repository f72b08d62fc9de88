"""One request's images on their way in: checked, streamed to the disk, written down in slices as they arrive whole."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from mien.archive_stream import Reader
from mien.archives import entries, why_passed_over
from mien.database import Database
from mien.errors import MienError, TooLargeError
from mien.faults import fault_point
from mien.jobs import Job
from mien.ledger.drafts import Arrived, UploadLimits, not_a_draft, record_uploads
from mien.paths import exact_name
from mien.settings import Settings
from mien.uploads import check_space, checked_path, flush, remove_files, store, uploads_folder

SLICE_FILES = 200
SLICE_BYTES = 64 << 20
SLICE_S = 1.0
NAMED_SKIPPED = 100
"""Files that are passed over are counted; so many of them are also named."""


@dataclass
class Received:
    """What one request brought."""

    files: int = 0
    size: int = 0
    replaced: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Files of an archive that are no images, by reason."""
    named_skipped: list[tuple[str, str]] = field(default_factory=list)
    total_files: int = 0
    total_size: int = 0


class Intake:
    """Stores the images of one request. A context: what is still ``pending`` at its end is deleted again."""

    def __init__(self, settings: Settings, public_id: str) -> None:
        self._settings = settings
        self._public_id = public_id
        self._limits = UploadLimits(settings.max_upload_files, settings.max_upload_bytes)
        self._entries = 0
        self.pending: list[Arrived] = []
        self.received = Received()

    def take(self, path: bytes, reader: Reader) -> None:
        """Store one image under the client's own name for it.

        Raises:
            InvalidRequestError: ``bad_path``.
            TooLargeError: ``file_too_large``.
            NoSpaceError, NotFoundError, UnavailableError: it cannot be stored.
        """
        checked_path(path)
        check_space(self._settings)
        arrived = store(self._settings, self._public_id, path, reader, limit=self._settings.max_file_bytes)
        self.pending.append(arrived)
        self.received.files += 1
        self.received.size += arrived.size

    def take_archive(self, reader: Reader) -> None:
        """Unpack a zip or tar as it comes; what is no image by the rules of a folder is passed over and counted.

        Raises:
            ArchiveError: the archive is damaged or unsafe.
            TooLargeError: ``archive_too_many``, and as :meth:`take`.
        """
        for entry in entries(reader):
            self._entries += 1
            if self._entries > self._limits.files:
                raise TooLargeError(
                    f"The archive holds more than {self._limits.files:,} files (MIEN_MAX_UPLOAD_FILES).",
                    code="archive_too_many",
                )
            if reason := why_passed_over(entry.path):
                self.received.skipped[reason] += 1
                if len(self.received.named_skipped) < NAMED_SKIPPED:
                    self.received.named_skipped.append((exact_name(entry.path), reason))
            else:
                self.take(entry.path, entry)

    def discard(self) -> None:
        """Delete what is not written down."""
        remove_files(uploads_folder(self._settings, self._public_id), (file.stored_name for file in self.pending))
        self.pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.discard()


class FormIntake(Intake):
    """Holds back all of them, for a job that is made, filled and submitted in one step, or not at all."""

    def take(self, path: bytes, reader: Reader) -> None:
        """As :meth:`Intake.take`; also TooLargeError ``job_too_large``."""
        super().take(path, reader)
        self._limits.check(self.received.files, self.received.size)

    def files(self) -> list[Arrived]:
        """The images, safely on the disk: the last one of each path, in path order."""
        latest = {file.path: file for file in self.pending}
        if latest:
            flush(self._settings, self._public_id, [file.stored_name for file in latest.values()])
        return [latest[path] for path in sorted(latest)]

    def keep(self, kept: list[Arrived]) -> None:
        """These are written down: they stay."""
        known = {file.stored_name for file in kept}
        self.pending = [file for file in self.pending if file.stored_name not in known]


class DraftIntake(Intake):
    """Writes down what has arrived, slice by slice: if the request breaks off, what came whole stays in the draft."""

    def __init__(self, db: Database, settings: Settings, job: Job) -> None:
        if job.status != "draft":
            raise not_a_draft(job.status)
        super().__init__(settings, job.public_id)
        self.received.total_files, self.received.total_size = job.upload_files, job.upload_bytes
        self._db = db
        self._job_id = job.id
        self._since = time.monotonic()
        self._size_pending = 0

    def take(self, path: bytes, reader: Reader) -> None:
        """As :meth:`Intake.take`; also ConflictError ``not_a_draft``."""
        super().take(path, reader)
        self._size_pending += self.pending[-1].size
        late = time.monotonic() - self._since >= SLICE_S
        if len(self.pending) >= SLICE_FILES or self._size_pending >= SLICE_BYTES or late:
            self._write_down()

    def finish(self) -> Received:
        """Write down the rest; gives what the request brought."""
        self._write_down()
        return self.received

    def _write_down(self) -> None:
        if self.pending:
            flush(self._settings, self._public_id, [file.stored_name for file in self.pending])
            fault_point("unpacking")
            done = record_uploads(self._db, self._job_id, self.pending, self._limits)
            self.pending.clear()
            remove_files(uploads_folder(self._settings, self._public_id), done.superseded)
            self.received.replaced += done.replaced
            self.received.total_files, self.received.total_size = done.files, done.size
        self._since, self._size_pending = time.monotonic(), 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if isinstance(error, MienError):
                self._write_down()
        except MienError:
            pass  # the first error is the one to tell; what could not be written down is discarded
        finally:
            super().__exit__(kind, error, at)
