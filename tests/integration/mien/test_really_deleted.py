"""What is deleted is gone: its bytes stand in no file of the data folder, SQLite's own files included.

Takes out the guard: without ``secure_delete=ON`` in mien/database.py, or without ``empty_wal`` in mien/upkeep.py, the
words are found.
"""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from mien.control import Control
from mien.database import Database
from mien.ledger.commit import ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.ledger.retention import expire_results
from mien.schema import images
from tests.support.image_parts import photo, saved
from tests.support.ledger import control, face, work_off
from tests.support.uploads import zipped
from tests.support.web import make_app, parts_of

pytestmark = pytest.mark.long

WORD = b"KlaraMustermann"
"""Stands in names, in the metadata and in the contents."""
MANY = 150


class World:
    """A front end over SQLite, its control, and what lies in its data folder."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.app: Flask = make_app(folder)
        self.db: Database = parts_of(self.app).db
        self.client: FlaskClient = self.app.test_client()
        self.control: Control = control(self.db, data_dir=self.data)
        self.digests: dict[str, bytes] = {}

    def upload(self, tag: str, count: int, *, keep_results: int | None = None) -> str:
        """A job of so many uploaded photographs, classified, looked at on its pages and exported."""
        word = WORD.decode() + tag
        body = {
            "source": {"type": "upload"},
            "metadata": {"person": word},
            **({} if keep_results is None else {"keep_results": keep_results}),
        }
        job: str = self.client.post("/api/v1/jobs", json=body).json["id"]
        noise = random.Random(tag)
        files = {
            f"{word}/{word}-{number:04d}.jpg": saved(photo(), "JPEG", comment=f"{word} {noise.random()}".encode())
            for number in range(count)
        }
        self.digests |= {name: hashlib.sha256(data).digest() for name, data in files.items()}
        sent = self.client.post(f"/api/v1/jobs/{job}/images", data=zipped(files), content_type="application/zip")
        assert sent.json["total_files"] == count
        self.client.post(f"/api/v1/jobs/{job}/submit")
        self.control.expand()
        work_off(self.db, self._answer)
        for path in ("/results", "/results.csv", "/summary", "/images"):
            assert self.client.get(f"/api/v1/jobs/{job}{path}").status_code == 200
        assert self.client.get(f"/jobs/{job}", headers={"Accept": "text/html"}).status_code == 200
        return job

    def _answer(self, image: LeasedImage) -> ImageOutcome:
        digest = self.digests[image.path.decode()]
        if image.path.endswith(b"7.jpg"):
            detail = f"{image.path.decode()} is broken."
            return ImageOutcome(image.id, "failed", sha256=digest, error_code="corrupt", error=detail)
        return ImageOutcome(image.id, "ok", width=40, height=30, sha256=digest, faces=(face(),))

    def work_off(self) -> None:
        """Control does what was asked, and sweeps."""
        self.control.purge()
        self.control.sweep()

    def files_with(self, word: bytes) -> list[str]:
        """Every file of the data folder in which the word stands, by its content or by its name."""
        return sorted(
            str(path.relative_to(self.data))
            for path in self.data.rglob("*")
            if path.is_file() and (word in path.read_bytes() or word in bytes(path))
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_deleted_job_is_in_no_file(world: World) -> None:
    job = world.upload("A", MANY)
    assert {"mien.sqlite3", "mien.sqlite3-wal"} & set(world.files_with(WORD + b"A"))
    world.client.delete(f"/api/v1/jobs/{job}")
    world.work_off()
    assert world.files_with(WORD) == []
    assert world.client.get(f"/api/v1/jobs/{job}").status_code == 404


def test_deleted_images_are_in_no_file_and_the_others_are(world: World) -> None:
    job = world.upload("B", MANY)
    gone = [f"{WORD.decode()}B/{WORD.decode()}B-{number:04d}.jpg" for number in range(3, 90)]
    world.client.delete(f"/api/v1/jobs/{job}/images", query_string={"path": gone})
    world.work_off()
    for name in gone:
        # the number alone: an index keeps the beginning that neighbours share
        assert world.files_with(name[-11:].encode()) == [], name
    with world.db.read() as connection:
        left = connection.execute(sa.select(sa.func.count()).select_from(images)).scalar_one()
    assert left == MANY - len(gone)
    assert world.files_with(b"B-0002.jpg")


def test_a_deleted_content_is_in_no_file(world: World) -> None:
    world.upload("C", 40)
    digest = world.digests[f"{WORD.decode()}C/{WORD.decode()}C-0005.jpg"]
    assert world.files_with(digest)
    receipt = world.client.post("/api/v1/deletions", json={"sha256": digest.hex()})
    world.work_off()
    assert world.client.get(receipt.headers["Location"]).json["deleted"]["images"] == 1
    assert world.files_with(digest) == []
    assert world.files_with(b"C-0005.jpg") == []


def test_what_its_own_time_deletes_is_in_no_file(world: World) -> None:
    world.upload("D", 60, keep_results=0)
    expire_results(world.db)
    world.work_off()
    assert world.files_with(WORD) == []


def test_the_uploads_alone_go_when_their_time_has_come(world: World) -> None:
    job = world.upload("E", 20)
    assert any(name.startswith("uploads/") for name in world.files_with(WORD))
    with world.db.write() as connection:
        connection.execute(sa.text("UPDATE jobs SET keep_images_s = 0"))
    world.control.sweep()
    assert not any(name.startswith("uploads/") for name in world.files_with(WORD))
    assert world.client.get(f"/api/v1/jobs/{job}").json["counts"]["total"] == 20


def test_while_somebody_reads_it_is_left_to_the_next_sweep(world: World) -> None:
    job = world.upload("F", 20)
    with world.db.read() as connection:
        connection.execute(sa.select(images.c.id)).all()  # a reader keeps the write-ahead log from being cut
        world.client.delete(f"/api/v1/jobs/{job}")
        world.control.purge()
        assert not world.control.upkeep.scrub(world.db)
    world.control.sweep()
    assert world.files_with(WORD) == []


def test_the_search_finds_what_is_there(world: World) -> None:
    """The test's own eyes: in a plain file, and in a database without the guard."""
    (world.data / "note.txt").write_bytes(io.BytesIO(b"x" + WORD).getvalue())
    assert world.files_with(WORD) == ["note.txt"]
