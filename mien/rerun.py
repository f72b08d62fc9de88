"""A job once more: the same images, another model or other options; the first job stays as it is."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from mien.database import Database
from mien.errors import ConflictError
from mien.jobs import Job, check_images_kept, get_job
from mien.ledger.drafts import Arrived
from mien.ledger.submit import earlier_job, submit
from mien.models import ModelStore
from mien.places import resolve_place
from mien.schema import uploads
from mien.settings import Settings
from mien.submission import LONGEST_KEEP_S, JobOptions, JobRequest, Place, UploadSource, prepare, upload_place
from mien.uploads import NewFolder, check_space, disk_error, new_folder, uploads_folder

ROWS = 1000
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)


class RerunRequest(BaseModel):
    """The body of ``POST /api/v1/jobs/{job_id}/rerun``; what is left out is as it was."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = Field(None, max_length=300, description="An installed model: name, or name@revision.")
    options: JobOptions | None = Field(None, description="Options that are to be different.")
    metadata: dict[str, Any] | None = Field(None, description="Anything of yours, instead of the first job's.")
    keep_images: int | None = Field(
        None, ge=0, le=LONGEST_KEEP_S, description="Seconds after the new job's end at which its uploads are deleted."
    )
    keep_results: int | None = Field(
        None, ge=0, le=LONGEST_KEEP_S, description="Seconds after the new job's end at which it is deleted."
    )


def rerun_job(
    db: Database,
    settings: Settings,
    store: ModelStore,
    first: Job,
    request: RerunRequest,
    *,
    idempotency_key: str | None = None,
    any_folder: bool = False,
) -> tuple[Job, bool]:
    """Write a new job over the images of ``first``; gives it and whether it is new.

    A folder is walked again, as it is now. Uploads are taken over as they are: each job has its own names for the
    files (hard links where the file system has them), so that deleting one leaves the other whole.

    Raises:
        ConflictError: ``job_is_draft``, ``job_deleting``, ``images_gone``.
        SourceError, ModelError, UnprocessableError: what is wrong, by field.
    """
    owner = first.owner
    request_hash = hashlib.sha256(f"rerun {first.public_id} {request.model_dump_json()}".encode()).hexdigest()
    if idempotency_key and (known := earlier_job(db, owner, idempotency_key, request_hash)):
        return get_job(db, owner, known), False
    _check(first)
    asked = _request(first, request)
    if first.source_type == "folder":
        new = prepare(settings, store, owner, asked, _folder(first, settings, any_folder), key=idempotency_key)
        made, created = submit(db, replace(new, request_hash=request_hash))
    else:
        with new_folder(settings) as folder:
            new = prepare(settings, store, owner, asked, upload_place(folder), key=idempotency_key)
            files = _take_over(db, settings, first, folder)
            made, folder.kept = submit(
                db, replace(new, request_hash=request_hash), public_id=folder.public_id, uploaded=files
            )
            created = folder.kept
    return get_job(db, owner, made), created


def _check(first: Job) -> None:
    if first.status == "deleting":
        raise ConflictError("The job is being deleted; it cannot be run again.", code="job_deleting")
    if first.status == "draft":
        raise ConflictError("The job is a draft: submit it, it has not run yet.", code="job_is_draft")
    check_images_kept(first)


def _request(first: Job, request: RerunRequest) -> JobRequest:
    """The first job's request with what is to be different."""
    options = {
        "faces": first.faces_mode,
        "precision": first.precision,
        "detect_size": first.detect_size,
        "min_face_score": first.min_face_score,
        "min_face": first.min_face,
    }
    if request.options is not None:
        options |= request.options.model_dump(exclude_unset=True, exclude_none=True)
    return JobRequest(
        source=UploadSource(type="upload"),  # not looked at: the place is given
        model=request.model or first.model_revision,
        options=JobOptions.model_validate(options),
        metadata=first.metadata if request.metadata is None else request.metadata,
        keep_images=first.keep_images_s if request.keep_images is None else request.keep_images,
        keep_results=first.keep_results_s if request.keep_results is None else request.keep_results,
    )


def _folder(first: Job, settings: Settings, any_folder: bool) -> Place:
    path, identity = resolve_place(settings, first.source_path or b"", anywhere=any_folder)
    return Place(
        "folder", path, first.source_text or "", identity, first.recursive, tuple(first.include), tuple(first.exclude)
    )


def _take_over(db: Database, settings: Settings, first: Job, folder: NewFolder) -> list[Arrived]:
    """Give every upload of the first job a name in the new job's folder.

    Raises:
        ConflictError: ``images_gone``, they were deleted meanwhile.
        NoSpaceError, UnavailableError: the disk does not take them.
    """
    source, target = uploads_folder(settings, first.public_id), uploads_folder(settings, folder.public_id)
    taken: list[Arrived] = []
    shards: set[str] = set()
    try:
        for row in _rows(db, first.id):
            shard = row.stored_name.partition("/")[0]
            if shard not in shards:
                (target / shard).mkdir(mode=0o700)
                shards.add(shard)
            _link(source / row.stored_name, target / row.stored_name, settings)
            taken.append(Arrived(row.path, row.stored_name, row.bytes, row.sha256))
        for place in (target, *(target / shard for shard in shards)):
            _flush(place)
    except FileNotFoundError:
        raise ConflictError("The job's uploads were deleted while they were taken over.", code="images_gone") from None
    except OSError as error:
        raise disk_error(error) from None
    return taken


def _rows(db: Database, job_id: int) -> Iterator[Any]:
    last = 0
    while True:
        with db.read() as connection:
            rows = connection.execute(
                sa.select(uploads.c.id, uploads.c.path, uploads.c.stored_name, uploads.c.bytes, uploads.c.sha256)
                .where(uploads.c.job_id == job_id, uploads.c.id > last)
                .order_by(uploads.c.id)
                .limit(ROWS)
            ).all()
        if not rows:
            return
        yield from rows
        last = rows[-1].id


def _link(source: Path, target: Path, settings: Settings) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_space(settings, source.stat().st_size)
        shutil.copyfile(source, target)
        target.chmod(0o600)
        _flush(target)


def _flush(path: Path) -> None:
    """Wait until the disk has it: a job that was accepted survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
