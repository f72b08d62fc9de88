"""From a request to a job: what is asked is checked, completed from the settings and the model, and written once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mien import __version__
from mien.database import Database
from mien.errors import UnprocessableError
from mien.jobs import Job, get_job
from mien.ledger.drafts import Arrived
from mien.ledger.submit import NewJob, earlier_job, submit
from mien.models import Model, ModelStore
from mien.pipeline import DECODER, DETECTOR, PIPELINE_VERSION
from mien.places import resolve_place
from mien.settings import Settings
from mien.uploads import NewFolder, new_folder

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=300)]
METADATA_BYTES = 16_384
LONGEST_KEEP_S = 100 * 365 * 86_400


class FolderSource(BaseModel):
    """A folder on the server, or a prefix in object storage, inside the roots that its operator allows."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["folder"]
    path: str = Field(
        min_length=1,
        max_length=4096,
        description="Absolute path of the folder on the server, or `s3://bucket/prefix`.",
    )
    recursive: bool = Field(True, description="Whether sub-folders are walked too.")
    include: list[Pattern] = Field(
        [], max_length=100, description="Shell patterns that replace the test by file ending."
    )
    exclude: list[Pattern] = Field([], max_length=100, description="Shell patterns of files to leave out.")


class UploadSource(BaseModel):
    """Images that are uploaded: the job is a draft until ``POST /jobs/{id}/submit``."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["upload"]


class JobOptions(BaseModel):
    """How the images are read; what is left out comes from the server's settings."""

    model_config = ConfigDict(extra="forbid")
    faces: Literal["detect", "whole"] = Field("detect", description="Find faces, or classify each image as it is.")
    precision: Literal["fp32", "bf16", "fp16", "int8"] | None = Field(None, description="Precision of the model.")
    detect_size: int | None = Field(
        None, ge=64, le=4096, multiple_of=32, description="Longer side at which faces are looked for, in pixels."
    )
    min_face_score: float | None = Field(None, gt=0, lt=1, description="Lowest detector score that counts as a face.")
    min_face: int | None = Field(None, ge=0, le=100_000, description="Smallest face that counts, in pixels.")


class JobRequest(BaseModel):
    """The body of ``POST /api/v1/jobs``."""

    model_config = ConfigDict(extra="forbid")
    source: FolderSource | UploadSource = Field(discriminator="type")
    model: str | None = Field(None, max_length=300, description="An installed model: name, or name@revision.")
    options: JobOptions = Field(default_factory=JobOptions)
    metadata: dict[str, Any] = Field(default_factory=dict, description="Anything of yours that goes with the job.")
    keep_images: int | None = Field(
        None, ge=0, le=LONGEST_KEEP_S, description="Seconds after the job's end at which its uploads are deleted."
    )
    keep_results: int | None = Field(
        None, ge=0, le=LONGEST_KEEP_S, description="Seconds after the job's end at which the job is deleted."
    )


@dataclass(frozen=True)
class Place:
    """Where a job's images lie: a folder of the owner's, or the one that takes the uploads."""

    type: Literal["folder", "upload"]
    path: bytes
    text: str
    identity: str
    recursive: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def create_job(
    db: Database,
    settings: Settings,
    store: ModelStore,
    owner: str,
    request: JobRequest,
    *,
    idempotency_key: str | None = None,
    any_folder: bool = False,
) -> tuple[Job, bool]:
    """Write the job; gives it and whether it is new (False: the idempotency key stood for it already).

    A job for uploads is a draft. ``any_folder`` lets the request name a folder outside the roots: the owner of the
    data folder may.

    Raises:
        SourceError, ModelError, UnprocessableError: what is wrong with the request, by field.
    """
    request_hash = hash_of(request)
    if idempotency_key and (known := earlier_job(db, owner, idempotency_key, request_hash)):
        return get_job(db, owner, known), False  # a repeat is answered even if the folder is gone by now
    if isinstance(request.source, FolderSource):
        place = _folder_place(settings, request.source, any_folder)
        new = prepare(settings, store, owner, request, place, key=idempotency_key)
        public_id, created = submit(db, new)
    else:
        with new_folder(settings) as folder:
            new = prepare(settings, store, owner, request, upload_place(folder), key=idempotency_key)
            public_id, created = submit(db, new, public_id=folder.public_id, draft=True)
            folder.kept = created
    return get_job(db, owner, public_id), created


def create_uploaded_job(db: Database, new: NewJob, folder: NewFolder, files: Sequence[Arrived]) -> tuple[Job, bool]:
    """Write a job together with its images, which lie in ``folder``; gives it and whether it is new.

    Its idempotency key stands for the images, too: the same names with other bytes are another request.
    """
    digest = hashlib.sha256(new.request_hash.encode())
    for file in files:
        digest.update(len(file.path).to_bytes(4, "big") + file.path + file.sha256)
    public_id, folder.kept = submit(
        db, replace(new, request_hash=digest.hexdigest()), public_id=folder.public_id, uploaded=files
    )
    return get_job(db, new.owner, public_id), folder.kept


def hash_of(request: JobRequest) -> str:
    """What tells two requests apart under one idempotency key."""
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()


def upload_place(folder: NewFolder) -> Place:
    """The folder of a new job's uploads."""
    return Place("upload", folder.path, "Uploaded images", folder.identity)


def _folder_place(settings: Settings, source: FolderSource, any_folder: bool) -> Place:
    folder, identity = resolve_place(settings, source.path, anywhere=any_folder)
    text = os.fsdecode(folder).encode("utf-8", "backslashreplace").decode()
    return Place("folder", folder, text, identity, source.recursive, tuple(source.include), tuple(source.exclude))


def prepare(
    settings: Settings, store: ModelStore, owner: str, request: JobRequest, place: Place, *, key: str | None
) -> NewJob:
    """The job as it would be written, completed from the settings and the model.

    Raises:
        ModelError, UnprocessableError: what is wrong with the request, by field.
    """
    if len(json.dumps(request.metadata)) > METADATA_BYTES:
        raise UnprocessableError(
            f"`metadata` is longer than {METADATA_BYTES} bytes as JSON.", code="metadata_too_large", field="metadata"
        )
    model = store.get(request.model or settings.model)
    asked = options_in_force(settings, model, request.options)
    return NewJob(
        owner=owner,
        source_type=place.type,
        source_path=place.path,
        source_text=place.text,
        source_identity=place.identity,
        recursive=place.recursive,
        include=list(place.include),
        exclude=list(place.exclude),
        model=model.name,
        model_revision=model.revision,
        labels=list(model.labels),
        precision=asked.precision,
        faces_mode=asked.faces,
        detect_size=asked.detect_size,
        min_face_score=asked.min_face_score,
        min_face=asked.min_face,
        fingerprint=_fingerprint(model, asked),
        provenance=_provenance(model, asked),
        request_hash=hash_of(request),
        metadata=request.metadata,
        idempotency_key=key,
        keep_images_s=settings.keep_images_s if request.keep_images is None else request.keep_images,
        keep_results_s=settings.keep_results_s if request.keep_results is None else request.keep_results,
    )


class Asked(BaseModel):
    """The options in force."""

    faces: str
    precision: str
    detect_size: int
    min_face_score: float
    min_face: int


def options_in_force(settings: Settings, model: Model, options: JobOptions) -> Asked:
    """The options, completed from the settings.

    Raises:
        UnprocessableError: ``precision_unavailable``, the model has no export for the precision.
    """
    precision = options.precision or settings.precision
    offered = {name for names in model.precisions.values() for name in names}
    if precision not in offered:
        raise UnprocessableError(
            f"The model {model.name} cannot give {precision}; it offers {', '.join(sorted(offered))}.",
            code="precision_unavailable",
            field="options.precision",
        )
    return Asked(
        faces=options.faces,
        precision=precision,
        detect_size=options.detect_size or settings.detect_size,
        min_face_score=options.min_face_score or settings.min_face_score,
        min_face=settings.min_face if options.min_face is None else options.min_face,
    )


def _fingerprint(model: Model, asked: Asked) -> str:
    """Two jobs with the same fingerprint give the same answer for the same bytes: what the cache relies on."""
    parts: dict[str, Any] = {
        "revision": model.revision,
        "precision": asked.precision,
        "decoder": DECODER,
        "pipeline": PIPELINE_VERSION,
        "faces": asked.faces,
    }
    if asked.faces == "detect":
        parts |= {
            "detector": DETECTOR,
            "size": asked.detect_size,
            "score": asked.min_face_score,
            "face": asked.min_face,
        }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _provenance(model: Model, asked: Asked) -> dict[str, Any]:
    detect = asked.faces == "detect"
    return {
        "mien_version": __version__,
        "pipeline_version": PIPELINE_VERSION,
        "decoder": DECODER,
        "model": {"name": model.name, "revision": model.revision, "labels": list(model.labels), "notes": model.notes},
        "precision": asked.precision,
        "faces": asked.faces,
        "detector": {
            "name": DETECTOR,
            "size": asked.detect_size,
            "min_score": asked.min_face_score,
            "min_face": asked.min_face,
        }
        if detect
        else None,
        "crop": {"margin": model.crop.margin if detect else 0, "grey": model.crop.grey},
        "input": {"width": model.input.width, "height": model.input.height},
    }
