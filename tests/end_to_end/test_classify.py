"""A folder in, exact rows out: the same on SQLite with the embedded broker and on PostgreSQL with Redis."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.end_to_end.system import Mien, grey, job_in, rows_of
from tests.support.machine import SAMPLES
from tests.support.tiny_model import LABELS, expected

ODD_NAMES = (
    "a new\nline.png",
    'with "quotes", and, commas.png',
    "emoji \N{GRINNING FACE}.png",
    "=1+1.png",
    "back\\slash.png",
)
PRECISION = 5e-6


def test_every_kind_of_file_gets_its_one_exact_row(mien: Mien, photos: Path, tmp_path: Path) -> None:
    levels = {"dark.png": 20, "sub/deep/bright.png": 240, **dict.fromkeys(ODD_NAMES, 128)}
    for name, level in levels.items():
        grey(photos / name, level)
    whole = (SAMPLES / "astronaut.jpg").read_bytes()
    (photos / "cut off.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "no image.png").write_text("this is text")
    Path(os.fsdecode(os.fsencode(photos) + b"/bytes\xff.png")).write_bytes((photos / "dark.png").read_bytes())
    (photos / "notes.txt").write_text("passed over")
    (photos / ".hidden.jpg").write_bytes(b"passed over in silence")

    table = tmp_path / "out.csv"
    said = mien.run("classify", photos, "--faces", "whole", "--csv", table, "--metadata", "study=7", code=3)

    rows = {row["file"]: row for row in rows_of(table)}
    assert list(rows_of(table)[0]) == [
        *("file", "face", "x", "y", "width", "height", "face_score", "emotion", "confidence"),
        *(f"p_{label}" for label in LABELS),
        *("status", "error"),
    ]
    for name, level in {**levels, "bytes\\xff.png": 20}.items():
        row = rows.pop(name)
        chances = expected(level / 255)
        assert (row["status"], row["error"], row["face"], row["face_score"]) == ("ok", "", "0", "")
        assert [float(row[f"p_{label}"]) for label in LABELS] == pytest.approx(chances, abs=PRECISION)
        assert row["emotion"] == LABELS[int(chances.argmax())]
        assert float(row["confidence"]) == pytest.approx(chances.max(), abs=PRECISION)
        assert [row[side] for side in ("x", "y", "width", "height")] == ["0", "0", "40", "30"]
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(
        ("cut off.jpg", "empty.jpg", "no image.png"), "failed"
    )
    assert all(row["error"] and not row["emotion"] for row in rows.values())
    assert "1 other file passed over" in said

    facts = json.loads((tmp_path / "out.job.json").read_text())
    assert facts["complete"] is True
    assert facts["metadata"] == {"study": "7"}
    assert (
        facts["counts"] | {"total": 11, "ok": 8, "failed": 3, "no_face": 0, "pending": 0, "faces": 8} == facts["counts"]
    )
    assert facts["model"]["name"] == "tiny"


def test_faces_are_found_and_an_image_without_one_is_no_face(mien: Mien, tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    shutil.copytree(SAMPLES, samples)
    outputs = {name: tmp_path / f"out.{name}" for name in ("csv", "jsonl", "images.csv")}
    mien.run(
        *("classify", samples, "--csv", outputs["csv"]),
        *("--jsonl", outputs["jsonl"], "--images-csv", outputs["images.csv"]),
    )

    rows = rows_of(outputs["csv"])
    faces = [(row["file"], row["face"], row["status"]) for row in rows]
    assert faces == [
        ("astronaut.jpg", "0", "ok"),
        ("astronaut_turned.jpg", "0", "ok"),
        ("cat.jpg", "", "no_face"),
        ("coffee.avif", "", "no_face"),
        ("grace_hopper.webp", "0", "ok"),
        ("launch/rocket.webp", "", "no_face"),
        ("launch/wall.tif", "", "no_face"),
        ("photographer.png", "0", "ok"),
        ("two_people.png", "0", "ok"),
        ("two_people.png", "1", "ok"),
    ]
    area = [float(row["width"]) * float(row["height"]) for row in rows if row["file"] == "two_people.png"]
    assert area == sorted(area, reverse=True)
    lines = [json.loads(line) for line in outputs["jsonl"].read_text().splitlines()]
    assert [line["file"] for line in lines] == sorted({file for file, _, _ in faces})
    assert sum(len(line["faces"]) for line in lines) == 6
    images = rows_of(outputs["images.csv"])
    assert {row["file"]: int(row["faces"]) for row in images} == {line["file"]: len(line["faces"]) for line in lines}


def test_patterns_and_folders_choose_what_is_read(mien: Mien, photos: Path) -> None:
    for name in ("a.png", "b.png", "sub/c.png", "d.dat"):
        grey(photos / name if name != "d.dat" else photos / "d.png", 100)
    (photos / "d.png").rename(photos / "d.dat")

    def files(*options: str) -> list[str]:
        return [
            row["file"] for row in rows_of(mien.run("classify", photos, "--faces", "whole", "--csv", "-", *options))
        ]

    assert files() == ["a.png", "b.png", "sub/c.png"]
    assert files("--no-recursive", "--exclude", "b*") == ["a.png"]
    assert files("--include", "*.dat", "--include", "sub/*") == ["d.dat", "sub/c.png"]


def test_cancel_keeps_what_is_done(mien: Mien, many: Callable[[int], Path], tmp_path: Path) -> None:
    photos = many(600)
    table = tmp_path / "partial.csv"
    classify = mien.start("classify", photos, "--csv", table)
    assert classify.stdout is not None
    job = next(job_in(line) for line in classify.stdout if line.startswith("Job "))
    mien.wait_for(lambda: mien.counts(job)["ok"] > 0, "some images are done")
    mien.run("cancel", job)
    said, _ = classify.communicate(timeout=60)
    assert classify.returncode == 4, said
    rows = rows_of(table)
    assert len(rows) == 600
    by_status = {status: sum(row["status"] == status for row in rows) for status in ("ok", "cancelled")}
    assert by_status["ok"] > 0
    assert by_status["cancelled"] > 0
    assert sum(by_status.values()) == 600
    assert mien.run("cancel", job)  # once more changes nothing


def test_retry_reads_again_only_what_failed(mien: Mien, photos: Path) -> None:
    grey(photos / "good.png", 200)
    (photos / "bad.png").write_bytes(b"not yet")
    job = job_in(mien.run("classify", photos, "--faces", "whole", code=3))
    assert "failed" in mien.run("results", job)
    grey(photos / "bad.png", 30)
    mien.run("retry", job, "--wait")
    rows = {row["file"]: row for row in rows_of(mien.run("results", job))}
    assert [(row["status"], row["emotion"]) for row in rows.values()] == [("ok", "dark"), ("ok", "bright")]
    said = mien.run("retry", job, code=1)
    assert "nothing to retry" in said


def test_jobs_can_be_listed_shown_cited_and_deleted(mien: Mien, photos: Path, tmp_path: Path) -> None:
    grey(photos / "a.png", 10)
    said = mien.start("classify", photos, "--faces", "whole", "--csv", tmp_path / "a.csv").communicate(timeout=60)[0]
    job = job_in(said)
    assert json.loads(mien.run("jobs", "--json"))[0]["id"] == job
    assert job in mien.run("jobs", "--status", "completed")
    assert "completed" in mien.run("status", job)
    assert json.loads(mien.run("status", job, "--json"))["counts"]["ok"] == 1
    assert "@software{" in mien.run("cite", job)
    mien.run("delete", job, "--yes")
    assert "no job" in mien.run("status", job, code=1)
    assert job not in mien.run("jobs", "--json")
    assert (photos / "a.png").exists()


def test_a_model_size_or_folder_that_is_not_there_is_one_clear_line(mien: Mien, photos: Path, tmp_path: Path) -> None:
    grey(photos / "a.png", 10)
    assert "no model 'nobody'" in mien.run("classify", photos, "--model", "nobody", code=1)
    assert "detect_size" in mien.run("classify", photos, "--detect-size", "63", code=1)
    assert "no folder" in mien.run("classify", tmp_path / "nowhere", code=1).lower()
    assert mien.run("status", "nonsense", code=1).count("\n") == 1


def test_a_huge_image_and_a_long_path_disturb_nothing(mien: Mien, photos: Path, tmp_path: Path) -> None:
    grey(photos / "good.png", 128)
    Image.new("1", (30_000, 30_000)).save(photos / "bomb.png")
    deep = os.fsencode(photos)
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(9):  # longer than a path may be for the system itself: made step by step
        os.mkdir("x" * 240, dir_fd=descriptor)
        below = os.open("x" * 240, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("deep.png", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    said = mien.run("classify", photos, "--faces", "whole", "--csv", "-", code=3)
    table = said[said.index("file,") :]
    found = {
        row["file"][-8:]: (row["status"], row["error"]) for row in rows_of(table) if row["status"] in ("ok", "failed")
    }
    assert found.pop("good.png") == ("ok", "")
    assert found.pop("bomb.png") == ("failed", "too_large")
    assert [error for _, error in found.values()] == ["path_too_long"]
