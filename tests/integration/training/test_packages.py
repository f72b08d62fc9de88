"""From a run to a model that the worker loads, and back to its figures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mien.errors import ModelError
from mien.model_folder import load_model
from tests.support.labelled import labelled_folder
from training.data import DataError
from training.evaluate import evaluate, write_report
from training.explore import explore
from training.explore import write_report as write_exploration
from training.package import network_of, packable
from training.predictions import predict, read_for_judging
from worker.classifier import OnnxClassifier
from worker.torch_classifier import TorchClassifier


def test_the_worker_loads_what_was_packaged(trained: Path) -> None:
    model = load_model(trained / "model")
    assert model.labels == ("happy", "sad", "surprise")
    assert dict(model.onnx) == {"fp32": "model.onnx", "int8": "model.int8.onnx"}
    crops = [np.random.default_rng(i).integers(0, 256, (48, 48, 3)).astype(np.uint8) for i in range(5)]
    by_onnx, by_torch = OnnxClassifier(model).classify(crops), TorchClassifier(model, "cpu").classify(crops)
    np.testing.assert_allclose(by_onnx, by_torch, atol=1e-4)


def test_the_export_holds_no_second_copy_of_the_weights(trained: Path) -> None:
    sizes = {p.name: p.stat().st_size for p in (trained / "model").iterdir()}
    assert sizes["model.onnx"] < sizes["model.safetensors"] / 2


def test_the_answer_does_not_depend_on_the_neighbours_in_int8(trained: Path) -> None:
    classifier = OnnxClassifier(load_model(trained / "model"), "int8")
    crops = [np.random.default_rng(i).integers(0, 256, (48, 48, 3)).astype(np.uint8) for i in range(8)]
    together = classifier.classify(crops)
    alone = np.concatenate([classifier.classify([crop]) for crop in crops])
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_the_temperature_is_in_the_head(trained: Path) -> None:
    temperature = json.loads((trained / "model" / "mien.json").read_text())["temperature"]
    plain, _, _ = network_of(trained / "run")
    pixels = torch.randn(3, 3, 48, 48)
    with torch.no_grad():
        expected = (packable(plain)(pixel_values=pixels).logits / temperature).softmax(dim=-1)
        from transformers import AutoModelForImageClassification

        shipped = AutoModelForImageClassification.from_pretrained(trained / "model", dtype=torch.float32).eval()
        found = shipped(pixel_values=pixels).logits.softmax(dim=-1)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_the_card_holds_the_figures_and_valid_metadata(trained: Path) -> None:
    yaml = pytest.importorskip("yaml")
    card = (trained / "model" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["pipeline_tag"] == "image-classification"
    figures = json.loads((trained / "run" / "figures.json").read_text())["figures"]
    assert [f["judged"] for f in figures] == [
        "faces valid (half), faces=whole, fp32", "faces valid (half), faces=whole, int8",
    ]  # fmt: skip
    assert f"{100 * figures[0]['scores']['accuracy']:.1f}%" in card


def test_evaluation_writes_page_and_json(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained / "model")
    found = evaluate(model, trained / "faces", other=model)
    write_report(found, tmp_path)
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["scores"]["images"] == 60
    assert content["comparison"]["mcnemar"]["p_value"] == 1.0
    page = (tmp_path / "evaluation.html").read_text()
    assert page.count("<svg") >= 2
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_labels_that_do_not_match_are_refused_and_can_be_renamed(trained: Path, tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "other", {"joy": 3, "grief": 3}, side=32)
    model = load_model(trained / "model")
    with pytest.raises(DataError, match=r"No label of the images \(grief, joy\) is one of the model's"):
        evaluate(model, root)
    found = evaluate(model, root, rename={"joy": "happy", "grief": "sad"})
    assert found.scores.unknown == 0


def test_a_folder_without_any_readable_image_says_so(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "x.jpg").write_bytes(b"no image")
    _, items = read_for_judging(tmp_path)
    with pytest.raises(DataError, match="None of 1 images could be classified: 1 unreadable"):
        predict(load_model(trained / "model"), items, detect=False)


def test_drawn_noise_shows_no_face(trained: Path, tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "noise", {"happy": 2, "sad": 2}, side=64)
    with pytest.raises(DataError, match="4 without a face"):
        evaluate(load_model(trained / "model"), root, faces="detect")


def test_exploring_finds_duplicates_across_splits_and_unreadable_files(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 5, "train/b": 3, "valid/a": 2})
    shutil.copy(root / "train" / "a" / "0.png", root / "valid" / "a" / "again.png")
    (root / "train" / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    content = write_exploration(explore(root), tmp_path / "report")
    assert content["counts"] == {"train": {"a": 5, "b": 4}, "valid": {"a": 3}}
    assert content["duplicates"]["exact_across_splits"] == [["train/a/0.png", "valid/a/again.png"]]
    assert [name for name, _ in content["unreadable"]] == ["train/b/broken.jpg"]
    assert "<svg" in (tmp_path / "report" / "explore.html").read_text()


def test_a_network_without_a_hugging_face_form_is_not_packaged() -> None:
    from training.cnn import SmallCnn

    with pytest.raises(ModelError, match="for comparison"):
        packable(SmallCnn(labels=3, width=4))


def test_the_commands_judge_predict_and_install(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.model_commands import commands

    named = {command.name: command for command in commands}
    monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path / "data"))
    run = CliRunner().invoke
    done = run(named["evaluate"], [str(trained / "model"), str(trained / "faces"), "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    picture = next((trained / "faces" / "valid" / "happy").iterdir())
    answer = run(
        named["predict"],
        [
            str(picture),
            "--model",
            str(trained / "model"),
            "--faces",
            "whole",
            "--explain",
            str(tmp_path / "seen"),
            "--json",
        ],
    )
    assert answer.exit_code == 0, answer.output
    (row,) = json.loads(answer.stdout)
    assert sum(row["faces"][0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert (tmp_path / "seen" / f"{picture.stem}.explained.jpg").stat().st_size > 1000


def test_exports_hold_no_trace_of_the_machine_that_made_them(trained: Path) -> None:
    for export in (trained / "model").glob("*.onnx"):
        content = export.read_bytes()
        assert b"site-packages" not in content
        assert str(Path.home()).encode() + b"/" not in content
        assert b"stack_trace" not in content
