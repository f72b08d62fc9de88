"""Training images out of answers: the crops that the worker saw, votes as raters gave them, and a run on them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.answering import answer
from mien.database import Database
from mien.errors import NotFoundError
from mien.images import decode
from mien.ledger.commit import FaceOutcome, ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.migrate import migrate
from mien.model_folder import CropSpec
from mien.review import start_check, start_mend
from mien.settings import Settings
from tests.support.ledger import expanded_job, work_off
from training.crops import square_input
from training.data import DataError, scan
from training.recipe import make_recipe
from training.reviewed import write_reviewed
from training.train import Trainer
from worker.crops import crop_face
from worker.face_search import Face

BOX = (30.0, 20.0, 40.0, 48.0)
MARGIN = 0.1


@pytest.fixture
def world(tmp_path: Path) -> tuple[Database, Settings, str, Path]:
    """A finished job of 12 photographs with one face each, at ``BOX``."""
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(4)
    for number in range(12):
        noise = random.integers(0, 90, (100, 120, 3), dtype=np.uint8)
        noise[20:68, 30:70] += np.uint8(120 if number % 2 else 30)
        Image.fromarray(noise).save(photos / f"{number:02d}.png")
    settings = Settings(data_dir=tmp_path / "data", roots=(photos,))
    settings.data_dir.mkdir()
    db = Database(settings.database)
    migrate(db)
    job = expanded_job(db, photos, 0, provenance={"crop": {"margin": MARGIN, "grey": True}})

    def one_face(image: LeasedImage) -> ImageOutcome:
        return ImageOutcome(image.id, "ok", width=120, height=100, faces=(FaceOutcome(*BOX, 0.9, (0.4, 0.35, 0.25)),))

    work_off(db, one_face)
    return db, settings, job, photos


def name(number: int) -> str:
    return f"{number:02d}.png"


def test_crops_and_votes(world: tuple[Database, Settings, str, Path], tmp_path: Path) -> None:
    db, settings, job, photos = world
    check, mend = start_check(db, "local", job, size=100), start_mend(db, "local", job)
    for number in range(10):
        wanted = "happy" if number % 2 else "sad"
        answer(db, check, rater="Ada", file=name(number), face=0, emotion=wanted)
        answer(db, check, rater="Ben", file=name(number), face=0, emotion=None if number == 9 else wanted)
    answer(db, check, rater="Ben", file=name(1), face=0, emotion="sad")  # the raters are even
    answer(db, mend, rater="Ada", file=name(2), face=0, emotion="neutral")  # her last word: one vote per rater
    answer(db, check, rater="Ada", file=name(10), face=0, emotion=None)
    (photos / name(3)).unlink()
    made = write_reviewed(db, settings, [job], tmp_path / "root")
    assert made.crops == 9 and dict(made.per_label) == {"sad": 4, "happy": 3, "unclear": 2}
    assert sorted(file for file, _ in made.left_out) == [name(3), name(10)]
    with (tmp_path / "root" / "votes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    of = {row["file"].partition("/")[0]: row for row in rows}
    assert set(rows[0]) == {"file", "happy", "sad", "neutral", "unknown"}
    assert any((row["happy"], row["unknown"]) == ("1", "1") for row in rows)
    assert {(row["happy"], row["sad"], row["neutral"]) for row in rows if row["file"].startswith("unclear/")} == {
        ("1", "1", "0"), ("0", "1", "1"),
    }  # fmt: skip
    found = decode((photos / name(0)).read_bytes())
    side = round(48 * (1 + 2 * MARGIN))
    wanted = crop_face(found, Face(*BOX, 1.0), CropSpec(MARGIN, grey=False), square_input(side))
    crops = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "root" / "sad").glob("*.png"))]
    assert any(np.array_equal(crop, wanted) for crop in crops) and of
    facts = json.loads((tmp_path / "root" / "dataset.json").read_text())
    assert facts["jobs"][0]["job"] == job and facts["crops"] == 9 and len(facts["left_out"]) == 2
    only_mend = write_reviewed(db, settings, [job], tmp_path / "mended", mode="mend")
    assert (only_mend.crops, dict(only_mend.per_label)) == (1, {"neutral": 1})
    dataset = scan(tmp_path / "root", votes="votes.csv")
    assert dataset.labels == ("happy", "sad")
    assert sum(len(item.votes) > 0 for item in dataset.splits["all"]) == 9


def test_a_changed_photograph_is_left_out(world: tuple[Database, Settings, str, Path], tmp_path: Path) -> None:
    db, settings, job, photos = world
    import hashlib

    import sqlalchemy as sa

    from mien.schema import images

    with db.write() as connection:  # as the worker writes it
        for row in connection.execute(sa.select(images.c.id, images.c.path)).all():
            digest = hashlib.sha256((photos / row.path.decode()).read_bytes()).digest()
            connection.execute(images.update().where(images.c.id == row.id).values(sha256=digest))
    mend = start_mend(db, "local", job)
    for number in (0, 1):
        answer(db, mend, rater="Ada", file=name(number), face=0, emotion="sad")
    (photos / name(1)).write_bytes((photos / name(2)).read_bytes())
    made = write_reviewed(db, settings, [job], tmp_path / "root")
    assert made.crops == 1 and made.left_out == [(name(1), "The file has changed since it was classified.")]


def test_what_cannot_become_a_root(world: tuple[Database, Settings, str, Path], tmp_path: Path) -> None:
    db, settings, job, _ = world
    with pytest.raises(DataError, match="rate some first"):
        write_reviewed(db, settings, [job], tmp_path / "none")
    with pytest.raises(NotFoundError):
        write_reviewed(db, settings, ["nothing"], tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(DataError, match="holds files"):
        write_reviewed(db, settings, [job], tmp_path / "full")


def test_a_model_is_trained_on_reviewed_faces(world: tuple[Database, Settings, str, Path], tmp_path: Path) -> None:
    db, settings, job, _ = world
    mend = start_mend(db, "local", job)
    for number in range(12):
        answer(db, mend, rater="Ada", file=name(number), face=0, emotion="happy" if number % 2 else "sad")
    write_reviewed(db, settings, [job], tmp_path / "root")
    recipe = make_recipe(
        {
            "name": "reviewed",
            "data": [{"path": str(tmp_path / "root"), "votes": "votes.csv"}],
            "model": {"kind": "vit", "image_size": 16, "patch_size": 4, "hidden": 24, "depth": 2, "heads": 2},
            "optim": {"steps": 6, "batch": 4, "lr": 2e-3, "layer_decay": 1.0, "warmup": 2, "precision": "fp32"},
            "run": {"threads": 1, "validate_every": 6},
        }
    )
    outcome = Trainer(recipe, tmp_path / "run", cache=tmp_path / "cache", device="cpu", say=lambda _: None).train()
    assert outcome.finished and outcome.weights.exists()
