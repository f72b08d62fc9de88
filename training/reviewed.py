"""A data root out of people's answers: the crops that the worker saw, and each rater's answer as a vote.

The crop is the square around the detector's own box with the margin of the job's model, so that training with
``faces = "whole"`` sees what serving sees. Nothing is detected again.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from PIL import Image

from mien import __version__
from mien.database import Database
from mien.errors import ImageError, MienError
from mien.images import decode
from mien.jobs import Job, get_job, unknown_job
from mien.model_folder import CropSpec
from mien.paths import exact_name
from mien.places import read_image
from mien.schema import corrections, faces, images, jobs, uploads
from mien.settings import Settings
from training.crops import square_input
from training.data import DataError
from worker.crops import crop_face
from worker.face_search import Face

LARGEST_SIDE = 384
"""Crops are kept at their own size up to this: several times what any of the models takes."""
UNCLEAR = "unclear"


@dataclass
class Written:
    """What became a data root."""

    folder: Path
    crops: int = 0
    votes: int = 0
    per_label: Counter[str] = field(default_factory=Counter)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(file, why) of faces that were answered but are not in it."""


@dataclass(frozen=True)
class _Reviewed:
    image: Any
    """A row: path, id, sha256, stored_name, and the box."""
    number: int
    votes: Counter[str]
    undecidable: int


def write_reviewed(
    db: Database,
    settings: Settings,
    job_ids: Sequence[str],
    folder: Path,
    *,
    mode: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Written:
    """Write ``folder/<label>/<job>-<image>-<face>.png``, ``folder/votes.csv`` and ``folder/dataset.json``.

    ``mode``: only answers given in mode ``check`` or ``mend``; None: all. One rater has one vote about a face, the last
    one. A face whose raters are even lies in ``unclear``, where votes alone say what it shows.

    Raises:
        DataError: the folder holds something; nobody has answered; a label cannot be a folder's name.
        NotFoundError: ``unknown_job``.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{str(folder)!r} holds files already; name a new folder.")
    found = [_job(db, public_id) for public_id in job_ids]
    labels = sorted({label for job in found for label in job.labels})
    for label in labels:
        if "/" in label or label.startswith((".", "__")) or label.lower() in ("unclear", "unknown"):
            raise DataError(f"The label {label!r} cannot be the name of a folder of training images.")
    written = Written(folder)
    rows: list[dict[str, object]] = []
    for job in found:
        say(f"reading the answers of job {job.public_id}")
        for reviewed in _reviewed(db, job, mode):
            _write_face(settings, job, reviewed, written, rows)
    if not rows:
        why = f" ({len(written.left_out)} answered faces are left out, such as {written.left_out[0][0]}: " \
              f"{written.left_out[0][1]})" if written.left_out else ""  # fmt: skip
        raise DataError(f"Nobody has given a face of these jobs a label yet; rate some first{why}.")
    with (folder / "votes.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, ["file", *labels, "unknown"], restval=0, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    (folder / "dataset.json").write_text(json.dumps(_facts(found, mode, labels, written), indent=2) + "\n")
    return written


def _job(db: Database, public_id: str) -> Job:
    with db.read() as connection:
        owner = connection.execute(sa.select(jobs.c.owner).where(jobs.c.public_id == public_id)).scalar_one_or_none()
    if owner is None:
        raise unknown_job(public_id)
    return get_job(db, owner, public_id)


def _reviewed(db: Database, job: Job, mode: str | None) -> Iterator[_Reviewed]:
    """The job's answered faces, by image, each with its votes."""
    statement = (
        sa.select(corrections.c.image_id, corrections.c.face_number, corrections.c.rater, corrections.c.emotion)
        .join(images, images.c.id == corrections.c.image_id)
        .where(images.c.job_id == job.id)
        .order_by(corrections.c.image_id, corrections.c.face_number, corrections.c.id)
    )
    if mode is not None:
        statement = statement.where(corrections.c.mode == mode)
    answers: dict[tuple[int, int], dict[str, str | None]] = {}
    with db.read() as connection:
        for row in connection.execute(statement):
            answers.setdefault((row.image_id, row.face_number), {})[row.rater] = row.emotion
    for (image_id, number), by_rater in answers.items():
        with db.read() as connection:
            image = connection.execute(
                sa.select(
                    images.c.path, images.c.id, images.c.sha256, uploads.c.stored_name, faces.c.x, faces.c.y,
                    faces.c.width, faces.c.height,
                )
                .join(faces, sa.and_(faces.c.image_id == images.c.id, faces.c.number == number))
                .outerjoin(uploads, sa.and_(uploads.c.job_id == images.c.job_id, uploads.c.path == images.c.path))
                .where(images.c.id == image_id)
            ).one_or_none()  # fmt: skip
        if image is not None:  # else deleted meanwhile
            votes = Counter(emotion for emotion in by_rater.values() if emotion is not None)
            yield _Reviewed(image, number, votes, sum(emotion is None for emotion in by_rater.values()))


def _write_face(
    settings: Settings, job: Job, reviewed: _Reviewed, written: Written, rows: list[dict[str, object]]
) -> None:
    name = exact_name(reviewed.image.path)
    if not reviewed.votes:
        written.left_out.append((name, "no rater could decide"))
        return
    try:
        crop = _crop(settings, job, reviewed.image)
    except (ImageError, MienError) as error:
        written.left_out.append((name, error.detail))
        return
    (top, count), *others = reviewed.votes.most_common()
    label = UNCLEAR if others and others[0][1] == count else top
    file = f"{label}/{job.public_id}-{reviewed.image.id}-{reviewed.number}.png"
    target = written.folder / file
    target.parent.mkdir(parents=True, exist_ok=True)
    crop.save(target)
    rows.append({"file": file, **reviewed.votes, "unknown": reviewed.undecidable})
    written.crops += 1
    written.votes += reviewed.votes.total()
    written.per_label[label] += 1


def _crop(settings: Settings, job: Job, image: Any) -> Image.Image:
    """What the worker's classifier was shown, in colour and at its own size.

    Raises:
        ImageError: the file is gone, has changed, or cannot be read.
    """
    relative = image.path if job.source_type != "upload" else (image.stored_name or "").encode()
    data = read_image(settings, job.source_path or b"", relative)
    if image.sha256 is not None and hashlib.sha256(data).digest() != image.sha256:
        raise ImageError("changed", "The file has changed since it was classified.")
    decoded = decode(data, max_pixels=settings.max_pixels)
    if job.faces_mode == "whole":
        whole = Image.fromarray(decoded.pixels)
        whole.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        return whole
    margin = float(job.provenance.get("crop", {}).get("margin", 0.0))
    face = Face(image.x, image.y, image.width, image.height, 1.0)
    side = max(face.width, face.height) * (1 + 2 * margin)
    size = max(1, min(LARGEST_SIDE, round(side)))
    return Image.fromarray(crop_face(decoded, face, CropSpec(margin, grey=False), square_input(size)))


def _facts(found: Sequence[Job], mode: str | None, labels: Sequence[str], written: Written) -> dict[str, Any]:
    return {
        "made_by": f"mien {__version__}",
        "mode": mode or "check and mend",
        "labels": list(labels),
        "crops": written.crops,
        "votes": written.votes,
        "per_folder": dict(sorted(written.per_label.items())),
        "left_out": [{"file": file, "reason": reason} for file, reason in written.left_out],
        "jobs": [
            {
                "job": job.public_id,
                "source": job.source_text,
                "model": job.model,
                "model_revision": job.model_revision,
                "faces": job.faces_mode,
                "crop": job.provenance.get("crop"),
            }
            for job in found
        ],
    }
