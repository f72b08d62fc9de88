"""What is fed to the network equals what the checkpoint's own image processor would feed it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mien.images import decode
from mien.models import load_model
from worker.classifier import OnnxClassifier, open_classifier
from worker.crops import crop_whole, model_input, whole_side
from worker.torch_classifier import TorchClassifier

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

ROOT = Path(__file__).parents[3]
SHARED = Path(os.environ.get("MIEN_SHARED", ROOT.parent / "shared"))
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
SIDE = 64


def make_vit(folder: Path, resize: str, resample: str) -> Path:
    """A small untrained ViT with every file of a model folder but the export: it only has to answer consistently."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIDE,
        patch_size=16,
        id2label={0: "calm", 1: "tense", 2: "glad"}, label2id={"calm": 0, "tense": 1, "glad": 2}, initializer_range=0.2,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    mean, std = [0.5, 0.4, 0.3], [0.5, 0.25, 0.2]
    if resize == "exact":
        processor = transformers.ViTImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, resample=RESAMPLE[resample], image_mean=mean, image_std=std
        )
    else:
        processor = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 80}, crop_size={"height": SIDE, "width": SIDE}, resample=RESAMPLE[resample],
            image_mean=mean, image_std=std,
        )  # fmt: skip
    processor.save_pretrained(folder)
    spec = {
        "format": 1, "name": "vit", "crop": {"margin": 0.0, "grey": False}, "onnx": {},
        "input": {
            "height": SIDE, "width": SIDE, "resize": resize, "shortest_edge": 80 if resize != "exact" else None,
            "resample": resample, "rescale": 1 / 255, "mean": mean, "std": std,
        },
    }  # fmt: skip
    (folder / "mien.json").write_text(json.dumps(spec))
    return folder


def pictures() -> list[bytes]:
    """JPEGs of several shapes, with texture, so that a wrong filter or a shifted crop shows."""
    dice = np.random.default_rng(4)
    found = []
    for width, height in ((640, 480), (300, 450), (1280, 960), (100, 101)):
        coarse = Image.fromarray(dice.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8))
        out = io.BytesIO()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
        found.append(out.getvalue())
    return found


def fed_by_processor(folder: Path, data: bytes) -> Any:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    return processor(images=Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="np")["pixel_values"]


@pytest.mark.parametrize("resize", ["exact", "shortest_edge"])
@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
def test_probabilities_equal_those_of_the_checkpoints_processor(tmp_path: Path, resize: str, resample: str) -> None:
    folder = make_vit(tmp_path, resize, resample)
    model = load_model(folder)
    classifier = open_classifier(model, "cpu", "fp32")
    assert isinstance(classifier, TorchClassifier)
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    for data in pictures():
        theirs = fed_by_processor(folder, data)
        full = decode(data)
        ours = model_input([crop_whole(full, model.crop, model.input)], model.input)
        np.testing.assert_allclose(ours, theirs, atol=0.03)  # one grey level at the most
        with torch.inference_mode():
            expected = network(pixel_values=torch.from_numpy(theirs)).logits.softmax(-1).numpy()[0]
        reduced = decode(data, min_side=whole_side(full.width, full.height, model.input))
        answer = classifier.classify([crop_whole(reduced, model.crop, model.input)])[0]
        np.testing.assert_allclose(answer, expected, atol=1e-2)


DEFAULT = ROOT / "models" / "default"


def test_the_default_models_export_and_checkpoint_agree() -> None:
    model = load_model(DEFAULT)
    exported, checkpoint = OnnxClassifier(model), TorchClassifier(model, "cpu", "fp32")
    crops = [crop_whole(decode(data), model.crop, model.input) for data in pictures()]
    theirs = checkpoint.classify(crops)
    np.testing.assert_allclose(exported.classify(crops), theirs, atol=1e-3)
    grey = [Image.open(io.BytesIO(data)).convert("L").convert("RGB") for data in pictures()]
    processor = transformers.AutoImageProcessor.from_pretrained(DEFAULT)
    fed = processor(images=grey if model.crop.grey else pictures(), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(model_input(crops, model.input), fed, atol=0.03)
