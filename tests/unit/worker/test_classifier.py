"""Classifiers: probabilities that can be checked by hand, the same alone and in a batch, and refusals that say why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mien.errors import ModelError
from mien.model_folder import InputSpec
from mien.models import load_model
from tests.support.tiny_model import SIZE, expected, make_tiny_model
from worker.classifier import OnnxClassifier, crops_at_once, open_classifier
from worker.probabilities import softmax


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def flat(level: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((SIZE, SIZE, 3), level, np.uint8)


def test_probabilities_are_the_models(folder: Path) -> None:
    classifier = open_classifier(load_model(folder), "cpu", "fp32")
    assert isinstance(classifier, OnnxClassifier)
    levels = [0, 60, 128, 200, 255]
    answers = classifier.classify([flat(level) for level in levels])
    assert answers.dtype == np.float32
    for answer, level in zip(answers, levels, strict=True):
        np.testing.assert_allclose(answer, expected(level / 255), atol=1e-5)
        assert abs(answer.sum() - 1) < 1e-6


def test_the_same_answer_alone_and_in_a_batch_of_any_size(folder: Path) -> None:
    classifier = open_classifier(load_model(folder), "cpu", "fp32")
    dice = np.random.default_rng(1)
    crops = [dice.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(33)]
    together = classifier.classify(crops)
    for size in (1, 5, 8):
        parts = np.concatenate([classifier.classify(crops[i : i + size]) for i in range(0, 33, size)])
        np.testing.assert_allclose(parts, together, atol=1e-5)
    assert classifier.classify([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("height", "width", "most", "expected"),
    [(70, 70, 8, 8), (112, 112, 8, 8), (112, 112, 4, 4), (160, 160, 8, 3), (224, 224, 8, 2), (224, 112, 8, 4),
     (384, 384, 8, 1), (1000, 1000, 8, 1)],
)  # fmt: skip
def test_large_inputs_go_through_a_network_few_at_once(height: int, width: int, most: int, expected: int) -> None:
    spec = InputSpec(height, width, "exact", None, "bilinear", 1 / 255, (0.0,) * 3, (1.0,) * 3)  # type: ignore[arg-type]
    assert crops_at_once(spec, most) == expected


def test_softmax_survives_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0], [-1e4, 0.0]])), [[1, 0], [0, 1]])


def test_a_model_with_other_outputs_than_labels_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path)
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(ModelError, match=r"3 outputs.*2 labels") as caught:
        open_classifier(load_model(folder), "cpu", "fp32")
    assert caught.value.code == "model_labels"


def test_a_model_with_another_input_than_it_says_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path)
    spec = json.loads((folder / "mien.json").read_text())
    spec["input"]["height"] = 48
    (folder / "mien.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError, match="fails on an input of its own size"):
        open_classifier(load_model(folder), "cpu", "fp32")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path)
    (folder / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"model\.onnx.*cannot be opened"):
        open_classifier(load_model(folder), "cpu", "fp32")


@pytest.mark.parametrize(
    ("device", "precision"), [("cpu", "int8"), ("cpu", "fp16"), ("cuda", "fp32"), ("cuda", "bf16")]
)
def test_what_the_folder_does_not_offer_is_refused(folder: Path, device: str, precision: str) -> None:
    with pytest.raises(ModelError, match=f"cannot run in {precision} on {device}") as caught:
        open_classifier(load_model(folder), device, precision)
    assert caught.value.code == "precision_unavailable"


def test_a_cpu_engine_imports_neither_torch_nor_transformers() -> None:
    code = "import worker.stages, worker.engine, sys; assert not {'torch', 'transformers', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_supervisor_imports_no_image_or_model_code() -> None:
    code = "import worker.supervisor, sys; assert not {'numpy', 'PIL', 'onnxruntime', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
