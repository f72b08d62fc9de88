"""The pictures on the pages: thumbnails, whole images and single faces, re-encoded, upright, from wherever they lie.

Only pictures that Mien made itself reach a browser, never a stranger's file. Before each one it is checked again that
the source may be shown: a folder that is no root any more is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Flask, Response, current_app, make_response

from mien.errors import ConflictError, ForbiddenError, ImageError, NotFoundError, UnavailableError, UnprocessableError
from mien.jobs import Job, get_job
from mien.objects import bucket_of, is_objects, lies_below
from mien.places import place_trouble, read_image
from mien.schema import faces, images, uploads
from mien.sources import resolve_folder
from mien.thumbnails import ThumbnailCache
from web.auth import caller
from web.picture_pool import Picture, PicturePool
from web.services import Waiting, services

EXTENSION = "mien-pictures"
THUMBNAIL_SIDE = 480
FACE_SIDE = 256
PICTURE_SIDE = 2048
FACE_MARGIN = 0.35
"""Share of the box's longer side that is shown around a face."""
MOST_BYTES = 128 << 20
"""Larger files are not shown: they would have to be held in memory whole."""

pictures = Blueprint("pictures", __name__)


@dataclass(frozen=True)
class _Tools:
    pool: PicturePool
    cache: ThumbnailCache
    places: Waiting


@dataclass(frozen=True)
class _Image:
    path: bytes
    sha256: bytes | None


def install(app: Flask) -> None:
    """Serve the pictures; needs the services to be there."""
    settings = app.extensions["mien"].settings
    app.extensions[EXTENSION] = _Tools(PicturePool(), ThumbnailCache(settings), Waiting(settings.web_threads - 2))
    app.register_blueprint(pictures)


@pictures.get("/jobs/<job_id>/images/<int:image_id>/thumbnail")
def thumbnail(job_id: str, image_id: int) -> Response:
    """The image, small."""
    return _answer(job_id, image_id, f"t{THUMBNAIL_SIDE}", {"max_side": THUMBNAIL_SIDE})


@pictures.get("/jobs/<job_id>/images/<int:image_id>/picture")
def picture(job_id: str, image_id: int) -> Response:
    """The image as large as a screen shows it."""
    return _answer(job_id, image_id, None, {"max_side": PICTURE_SIDE})


@pictures.get("/jobs/<job_id>/images/<int:image_id>/faces/<int:number>")
def face(job_id: str, image_id: int, number: int) -> Response:
    """One face with a little around it, a square."""
    return _answer(job_id, image_id, f"f{number}", {"max_side": FACE_SIDE}, number)


def _answer(
    job_id: str, image_id: int, kept_as: str | None, wanted: dict[str, Any], face_number: int | None = None
) -> Response:
    parts = services()
    tools: _Tools = _tools()
    job = get_job(parts.db, caller().reach, job_id)
    row = _row(job, image_id)
    check_may_be_shown(job)
    if kept_as and (kept := tools.cache.get(job.public_id, image_id, kept_as)):
        return _jpeg(kept)
    if face_number is not None:
        wanted["crop"] = _box(image_id, face_number)
    with tools.places.place() as got:
        if not got:
            raise UnavailableError("Too many pictures are on their way; try again in a moment.", code="busy")
        made = _make(tools.pool, job, row, wanted)
    if kept_as:
        tools.cache.put(parts.db, job.public_id, image_id, kept_as, made.data)
    return _jpeg(made.data)


def _make(pool: PicturePool, job: Job, row: _Image, wanted: dict[str, Any]) -> Picture:
    settings = services().settings
    try:
        data = read_image(
            settings, job.source_path or b"", _relative(job, row.path), limit=min(MOST_BYTES, settings.max_file_bytes)
        )
        facts = {"max_pixels": settings.max_pixels, "sha256": None if row.sha256 is None else row.sha256.hex()}
        return pool.render(data, {**wanted, **facts})
    except ImageError as error:
        if error.code == "changed":
            raise ConflictError(
                "The file has changed since it was classified; it is not shown.", code="changed"
            ) from None
        if error.code in ("missing", "outside_root", "not_a_file"):
            raise NotFoundError(error.detail, code=error.code) from None
        raise UnprocessableError(error.detail, code=error.code) from None


def check_may_be_shown(job: Job) -> None:
    """Refuse the pictures of a folder that the caller may not read by now, or that is not there.

    Raises:
        ForbiddenError: ``source_outside_roots``.
        NotFoundError, UnavailableError: the source is gone, or not there just now.
    """
    settings = services().settings
    path = job.source_path or b""
    if job.source_type == "upload":
        if job.upload_files == 0:
            raise NotFoundError("The job's uploads are deleted by now.", code="images_gone")
        return
    if not caller().any_folder and not _is_allowed(path):
        raise ForbiddenError(
            "These photographs lie outside the folders that this Mien may show. Start it with `mien up FOLDER`, or "
            "sign in with the local token.",
            code="source_outside_roots",
        )
    if trouble := place_trouble(settings, path, job.source_identity, ask=False):
        raise UnavailableError(trouble, code="source_away")


def _is_allowed(path: bytes) -> bool:
    roots = services().settings.roots
    if is_objects(path):
        return any(lies_below(bucket_of(path), root) for root in roots)
    try:
        resolve_folder(path, tuple(root for root in roots if isinstance(root, Path)))
    except UnprocessableError as error:
        return error.code != "source_outside_roots"  # that it is gone is said otherwise
    return True


def _row(job: Job, image_id: int) -> _Image:
    with services().db.read() as connection:
        row = connection.execute(
            sa.select(images.c.path, images.c.sha256, images.c.outcome).where(
                images.c.job_id == job.id, images.c.id == image_id
            )
        ).one_or_none()
    if row is None or job.status == "deleting":
        raise NotFoundError("There is no such image in this job.", code="unknown_image")
    if row.outcome not in ("ok", "no_face"):
        raise UnprocessableError("This image could not be read, so it is not shown.", code="not_readable")
    return _Image(row.path, row.sha256)


def _relative(job: Job, path: bytes) -> bytes:
    """Where the file lies below its source: an upload has a name of ours."""
    if job.source_type != "upload":
        return path
    with services().db.read() as connection:
        name = connection.execute(
            sa.select(uploads.c.stored_name).where(uploads.c.job_id == job.id, uploads.c.path == path)
        ).scalar_one_or_none()
    if name is None:
        raise NotFoundError("This upload is deleted by now.", code="images_gone")
    return str(name).encode()


def _box(image_id: int, number: int) -> list[float]:
    with services().db.read() as connection:
        row = connection.execute(
            sa.select(faces.c.x, faces.c.y, faces.c.width, faces.c.height).where(
                faces.c.image_id == image_id, faces.c.number == number
            )
        ).one_or_none()
    if row is None:
        raise NotFoundError("There is no such face in this image.", code="unknown_face")
    margin = FACE_MARGIN * max(row.width, row.height)
    return [row.x - margin, row.y - margin, row.width + 2 * margin, row.height + 2 * margin]


def _tools() -> _Tools:
    found: _Tools = current_app.extensions[EXTENSION]
    return found


def _jpeg(data: bytes) -> Response:
    answer = make_response(data)
    answer.content_type = "image/jpeg"
    return answer
