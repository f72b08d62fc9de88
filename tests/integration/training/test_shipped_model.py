"""The model that ships with Mien: whole, as its card says, and able to read a face."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mien.images import RGB, decode
from mien.model_folder import CropSpec, load_model
from mien.resources import resource
from training.crops import Cropper
from worker.classifier import OnnxClassifier
from worker.torch_classifier import TorchClassifier

FOLDER = resource("models/default")


def test_it_is_small_and_its_card_is_of_this_revision() -> None:
    model = load_model(FOLDER)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 60e6
    assert model.name == "default"
    assert {"fp32", "int8"} == set(dict(model.onnx))
    card = (FOLDER / "README.md").read_text()
    assert model.revision[:16] in card
    assert json.loads((FOLDER / "config.json").read_text())["architectures"] == ["Dinov2ForImageClassification"]


def test_its_export_answers_as_its_weights_in_torch() -> None:
    model = load_model(FOLDER)
    random = np.random.default_rng(0)
    side = model.input.height
    crops = [np.repeat(random.integers(0, 256, (side, side, 1)).astype(np.uint8), 3, axis=2) for _ in range(6)]
    by_onnx, by_torch = OnnxClassifier(model).classify(crops), TorchClassifier(model, "cpu").classify(crops)
    np.testing.assert_allclose(by_onnx, by_torch, atol=1e-4)


@pytest.fixture(scope="module")
def smiles(shared: Path) -> list[RGB]:
    """Every smile among the photographs that were kept out of training, as serving crops it."""
    model = load_model(FOLDER)
    cropper = Cropper(CropSpec(model.crop.margin, model.crop.grey), model.input, detect=True)
    crops: list[RGB] = []
    with tarfile.open(shared / "data" / "wild.tar") as archive:
        for member in archive:
            if member.name.startswith("wild/valid/happy/") and member.isfile():
                stream = archive.extractfile(member)
                assert stream is not None
                crop = cropper(decode(stream.read()))
                crops += [crop] if crop is not None else []
    return crops


@pytest.mark.shared
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_reads_smiles_on_photographs_it_was_not_trained_on(smiles: list[RGB], precision: str) -> None:
    """The card's recall of ``happy`` on these images, 0.85, less what rounding on another machine may change."""
    model = load_model(FOLDER)
    probabilities = OnnxClassifier(model, precision).classify(smiles)
    happy = model.labels.index("happy")
    assert len(smiles) > 240
    assert float((probabilities.argmax(axis=1) == happy).mean()) == pytest.approx(0.85, abs=0.03)
