"""``mien review`` against a front end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from flask import Flask

from cli.main import run
from mien.client import Client
from mien.database import Database
from tests.support.review import reviewed_job
from tests.support.serving import serving


def test_from_the_draw_to_the_files(
    app: Flask, db: Database, photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = reviewed_job(db, photos / "a")
    with serving(app) as url, Client(url) as mien:
        monkeypatch.setenv("MIEN_URL", url)
        assert run(["review", "list", job]) == 0
        assert "mien review draw" in capfd.readouterr().err
        assert run(["review", "draw", job, "--size", "10", "--seed", "4"]) == 0
        review = capfd.readouterr().out.strip()
        for face in mien.review_faces(review, "Ada"):
            mien.rate(review, "Ada", face.file, face.face, "happy")
        assert run(["review", "list", job]) == 0
        assert "Ada 10" in capfd.readouterr().out
        assert run(["review", "figures", review]) == 0
        said = capfd.readouterr().out
        assert said.startswith("accuracy ") and "Ada and the model:" in said
        assert run(["review", "figures", review, "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["told"] == 10
        assert run(["review", "export", job]) == 0
        rows = list(csv.DictReader(capfd.readouterr().out.splitlines()))
        assert len(rows) == 10 and {row["rater"] for row in rows} == {"Ada"}
        target = photos.parent / "answers.jsonl"
        assert run(["review", "export", job, "--jsonl", str(target)]) == 0
        assert len(target.read_text().splitlines()) == 10
        assert run(["review", "figures", "nothing"]) == 1
        assert "There is no review" in capfd.readouterr().err
