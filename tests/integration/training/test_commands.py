"""The commands, as a person types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import run
from training.demo import draw_faces

RECIPE = """
name = "small"
[[data]]
path = "$FACES"
[model]
kind = "vit"
image_size = 24
patch_size = 6
hidden = 24
depth = 2
heads = 2
[optim]
steps = 12
batch = 8
warmup = 2
[run]
validate_every = 6
threads = 1
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw_faces(tmp_path / "faces", images={"train": 12, "valid": 8})
    (tmp_path / "small.toml").write_text(RECIPE)
    monkeypatch.setenv("FACES", str(tmp_path / "faces"))
    monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_recipe_to_an_installed_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "small.toml"]) == 0
    assert (place / "runs" / "small" / "plots.html").read_text().count("<svg") == 5
    assert run(["package", "runs/small", "model", "--judge", "faces", "--install"]) == 0
    capsys.readouterr()
    assert run(["models", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["default"] for row in rows} == {"default": True, "small": False}
    assert run(["models", "default", "small"]) == 0
    assert run(["models", "verify"]) == 0
    capsys.readouterr()
    assert run(["models", "list", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out) if row["default"]} == {"small"}
    picture = next((place / "faces" / "valid" / "sad").iterdir())
    assert run(["predict", str(picture), "--faces", "whole"]) == 0
    assert "happy" in capsys.readouterr().out


def test_a_changed_model_does_not_verify(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    config = place / "data" / "models" / "default" / row["revision"] / "config.json"
    config.write_text(config.read_text() + " ")
    assert run(["models", "verify"]) == 1


def test_errors_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, reason in (
        (["train", "missing.toml"], "cannot be read"),
        (["explore", "nowhere"], "There is no folder"),
        (["evaluate", "nonesuch", "faces"], "There is no model 'nonesuch'"),
        (["package", "runs/none", "model"], "no checkpoint"),
        (["models", "add", "nowhere/at-all"], "Name the commit"),
        (["evaluate", "default", "faces", "--map", "joy"], "OLD=NEW"),
    ):
        assert run(arguments) in (1, 2), arguments
        told = capsys.readouterr().err
        assert reason in told, arguments
        assert "Traceback" not in told


def test_an_image_that_cannot_be_read_costs_only_itself(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "broken.jpg").write_bytes(b"no image")
    picture = next((place / "faces" / "valid" / "sad").iterdir())
    code = run(["predict", "broken.jpg", str(picture), "--faces", "whole", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert code == 3
    assert [len(row["faces"]) for row in rows] == [0, 1]
    assert "not an image" in rows[0]["error"]


def test_listing_models_and_predicting_load_no_torch(place: Path) -> None:
    picture = next((place / "faces" / "valid" / "sad").iterdir())
    for arguments in (["models", "list"], ["predict", str(picture)]):
        code = f"import sys; from cli.main import run; run({arguments!r}); sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
