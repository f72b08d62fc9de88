"""Folders of small images with known answers, jobs on them, and the exact look at what came out."""

from __future__ import annotations

import io
import itertools
import secrets
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from PIL import Image

from mien.errors import MienError
from mien.schema import chunks, jobs
from tests.end_to_end.system import rows_of
from tests.reliability.systems import System
from tests.support.ledger import assert_exact
from tests.support.machine import SAMPLES

Row = tuple[str, ...]
FACES = ("astronaut.jpg",)
_number = itertools.count()


def greys(folder: Path, count: int, name: str = "slow", named: Mapping[int, str] | None = None) -> list[str]:
    """Write so many small grey PNGs, no two alike, here or in another folder; gives their names.

    ``name`` is part of each, and says which fault an engine commits on it; ``named`` gives single ones another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    salt = secrets.token_bytes(8)
    names = []
    for number in range(count):
        file = f"{number:05d}{(named or {}).get(number, name)}.png"
        # what follows the end of an image changes its SHA-256 and nothing else
        (folder / file).write_bytes(_grey(number % 256) + salt + b"%d" % number)
        names.append(file)
    return names


@cache
def _grey(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (40, 30), level).save(out, "PNG")
    return out.getvalue()


def portraits(folder: Path, count: int) -> dict[str, int]:
    """Write so many small JPEGs with no face, one and two; gives the kind of each: it decides the answer."""
    folder.mkdir(parents=True, exist_ok=True)
    salt = secrets.token_bytes(8)
    kinds = {}
    for number in range(count):
        kind = number % len(portrait_kinds())
        file = f"{number:05d}slow.jpg"
        (folder / file).write_bytes(portrait_kinds()[kind] + salt + b"%d" % number)
        kinds[file] = kind
    return kinds


@cache
def portrait_kinds() -> Sequence[bytes]:
    """Eight pictures: one face at three sizes and lights, two faces, none."""
    portrait = Image.open(SAMPLES / "astronaut.jpg").convert("RGB")
    side = min(portrait.size)
    face = portrait.crop((0, 0, side, side)).resize((160, 160))
    pair = Image.new("RGB", (320, 160))
    pair.paste(face, (0, 0))
    pair.paste(face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (160, 0))
    pictures = [
        face,
        face.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        face.point([min(255, value + 60) for value in range(256)] * 3),
        face.point([value // 2 for value in range(256)] * 3),
        face.resize((224, 224)),
        pair,
        Image.new("RGB", (160, 160), (90, 120, 60)),
        pair.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ]
    encoded = []
    for picture in pictures:
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=92)
        encoded.append(out.getvalue())
    return encoded


def new_folder(system: System) -> Path:
    """A folder of its own that jobs may name."""
    return system.folder / f"photos{next(_number)}"


def submit(system: System, folder: Path, **options: Any) -> str:
    """Submit a folder and give the job's id."""
    with system.client() as client:
        return client.submit_folder(folder, **({"faces": "whole"} | options)).id


def facts(system: System, job: str) -> Any:
    """The job's row."""
    with system.db.read() as connection:
        return connection.execute(sa.select(jobs).where(jobs.c.public_id == job)).one()


def done(system: System, job: str) -> int:
    """Images of the job that have an outcome; it may not be there yet."""
    row = facts(system, job)
    return int(row.total - row.pending)


def wait_until_done(system: System, job: str, count: int, seconds: float = 120) -> float:
    """Wait until so many images have an outcome; gives the seconds."""
    return system.wait_for(lambda: done(system, job) >= count, f"{count} images of {job} have ended", seconds)


def finish(system: System, job: str, status: str = "completed", seconds: float = 180) -> float:
    """Wait for the job's end; gives the seconds it took."""
    took = system.wait_for(
        lambda: facts(system, job).status in ("completed", "cancelled", "failed"), f"the end of {job}", seconds
    )
    assert facts(system, job).status == status, facts(system, job).error
    return took


def rows(system: System, job: str) -> list[dict[str, str]]:
    """The rows of the results, as a person downloads them."""
    target = system.folder / f"{job}.csv"
    found: list[list[dict[str, str]]] = []

    def fetch() -> bool:
        with system.client() as client:
            client.download(job, "results.csv", target)
        found.append(rows_of(target))
        return True

    system.wait_for(fetch, "the results")
    target.unlink()
    return found[0]


def check(
    system: System, job: str, names: Sequence[str], failed: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Exactly one row per image with one face, none lost and none twice, exactly these failed; gives the rows."""
    table = rows(system, job)
    assert sorted(row["file"] for row in table) == sorted(names), "an image was lost, or is there twice"
    ended = {row["file"]: row["error"] for row in table if row["status"] == "failed"}
    assert set(ended) == set(failed or {}), f"failed: {ended}"
    assert all(row["status"] == "ok" for row in table if row["file"] not in ended)
    exact(system, job)
    return table


def exact(system: System, job: str) -> Any:
    """Counters, rows and tallies agree, and did in every snapshot; gives the job's row."""
    row = assert_exact(system.db, job)
    defects = system.watcher.take_defects()
    assert not defects, "\n".join(defects[:5])
    return row


def charged(system: System, job: str) -> tuple[int, int]:
    """Losses charged to the job's chunks, and suspects among them."""
    statement = (
        sa.select(
            sa.func.coalesce(sa.func.sum(chunks.c.losses), 0).label("losses"),
            sa.func.coalesce(sa.func.sum(sa.cast(chunks.c.suspect, sa.Integer)), 0).label("suspects"),
        )
        .join(jobs, jobs.c.id == chunks.c.job_id)
        .where(jobs.c.public_id == job)
    )
    with system.db.read() as connection:
        row = connection.execute(statement).one()
    return int(row.losses), int(row.suspects)


def is_gone(system: System, job: str) -> bool:
    """Whether the job was deleted."""
    with system.client() as client:
        try:
            client.job(job)
        except MienError as error:
            return error.code == "unknown_job"
    return False
