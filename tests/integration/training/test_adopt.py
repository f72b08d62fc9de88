"""Adding strangers' checkpoints: what is taken, and what is refused with which reason."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mien.errors import ModelError
from tests.support.labelled import labelled_folder
from tests.support.machine import ROOT
from training.adopt import adopt
from training.data import scan
from worker.classifier import OnnxClassifier
from worker.crops import crop_whole

LABELS = {0: "angry", 1: "calm", 2: "glad"}


def checkpoint(folder: Path, **changes: Any) -> Path:
    """A small ViT with random weights as `save_pretrained` leaves it; ``changes`` replace fields of config.json."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        id2label=LABELS, label2id={v: k for k, v in LABELS.items()},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True,
                    "do_normalize": True, "size": {"height": 32, "width": 32}, "resample": 2, "rescale_factor": 1 / 255,
                    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3]})
    )  # fmt: skip
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**table, **changes}))
    return folder


def test_a_checkpoint_answers_as_with_its_own_processor(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    source = checkpoint(tmp_path / "source")
    made = adopt(str(source), tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3)).astype(np.uint8)
    from mien.images import DecodedImage

    image = DecodedImage(pixels, 40, 50, 1.0, "PNG", 1)
    found = OnnxClassifier(made.model).classify([crop_whole(image, made.model.crop, made.model.input)])
    inputs = AutoImageProcessor.from_pretrained(source)(Image.fromarray(pixels), return_tensors="pt")
    with torch.no_grad():
        expected = AutoModelForImageClassification.from_pretrained(source)(**inputs).logits.softmax(dim=-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert made.model.name == "source"
    assert "margin 0.1" in made.model.notes
    assert dict(made.model.onnx) == {"fp32": "model.onnx"}
    assert made.model.notes in (tmp_path / "model" / "README.md").read_text()


def test_given_crops_are_not_called_assumed(tmp_path: Path) -> None:
    made = adopt(str(checkpoint(tmp_path / "source")), tmp_path / "model", margin=0.3, grey=True, name="mine")
    assert (made.model.name, made.model.crop.margin, made.model.crop.grey, made.model.notes) == ("mine", 0.3, True, "")


def test_int8_is_made_and_judged_on_the_given_images(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "images", {"angry": 20, "glad": 20})
    assert len(scan(root).splits["all"]) == 40
    made = adopt(str(checkpoint(tmp_path / "source")), tmp_path / "model", calibrate=root, faces="whole")
    assert "int8" in dict(made.model.onnx)
    assert "on 20 images" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": ["ViTModel"]}, "no image classifier"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "code of its own"),
        ({"problem_type": "multi_label_classification"}, "multi-label head"),
        ({"problem_type": "regression"}, "regression head"),
        ({"id2label": {"0": "only"}}, "single output"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, "no labels"),
        ({"id2label": {"0": "a", "1": "b", "2": "c", "3": "d"}}, "cannot be loaded|lacks trained weights"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    source = checkpoint(tmp_path / "source", **changes)
    with pytest.raises(ModelError, match=reason):
        adopt(str(source), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        adopt(str(source), tmp_path / "model")


def test_an_untrained_head_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = checkpoint(tmp_path / "source")
    weights = {
        name: tensor for name, tensor in load_file(source / "model.safetensors").items() if "classifier" not in name
    }
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks trained weights for classifier"):
        adopt(str(source), tmp_path / "model")


def test_a_processor_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    table = json.loads((source / "preprocessor_config.json").read_text())
    (source / "preprocessor_config.json").write_text(json.dumps({**table, "do_pad": True}))
    with pytest.raises(ModelError, match="padding"):
        adopt(str(source), tmp_path / "model")


@pytest.mark.parametrize(("source", "reason"), [("owner/model", "Name the commit"), ("/no/such/folder", "no folder"),
                                                ("owner/model@main", "Name the commit")])  # fmt: skip
def test_a_source_must_be_a_folder_or_a_commit(tmp_path: Path, source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        adopt(source, tmp_path / "model")


def test_adding_a_checkpoint_needs_the_packages_of_its_extra_only() -> None:
    code = "import sys, training.adopt; sys.exit(bool({'sklearn', 'scipy', 'torchmetrics'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
