"""An image's way through the stages, with real files and a model whose answers can be worked out by hand."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.errors import ModelError
from mien.models import load_model
from tests.support.tiny_model import expected, make_tiny_model
from worker.messages import EngineSpec, ImageTask
from worker.stages import Stages


def make_spec(folder: Path, faces: str = "whole", **changes: object) -> EngineSpec:
    model = load_model(folder)
    values = {
        "model_folder": str(folder), "model_revision": model.revision, "device": "cpu", "precision": "fp32",
        "faces": faces, "detect_size": 640, "min_face_score": 0.7, "min_face": 0, "max_pixels": 200_000_000,
        "max_file_bytes": 1 << 29,
    } | changes  # fmt: skip
    return EngineSpec(**values)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


def make_stages(signs: list[int] | None = None) -> Stages:
    return Stages(device="cpu", batch=4, sign=lambda: (signs if signs is not None else []).append(1))


def task(path: Path, key: int = 0) -> ImageTask:
    return ImageTask(key, os.fsencode(path.parent), os.fsencode(path.name))


def test_a_whole_image_is_one_face_without_a_score(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((30, 40, 3), 128, np.uint8)).save(path)
    begun: list[int] = []
    (result,) = make_stages().run(make_spec(folder), [task(path, 9)], begun.append)
    assert begun == [9]
    assert (result.key, result.outcome, result.width, result.height, result.format) == (9, "ok", 40, 30, "PNG")
    assert result.bytes == path.stat().st_size
    assert result.sha256 == hashlib.sha256(path.read_bytes()).digest()
    (face,) = result.faces
    assert (face.x, face.y, face.width, face.height, face.score) == (0, 0, 40, 30, None)
    np.testing.assert_allclose(face.probabilities, expected(128 / 255), atol=1e-5)
    assert min(result.read_s, result.decode_s, result.classify_s) > 0
    assert result.detect_s == 0
    (inline,) = make_stages().run(make_spec(folder), [ImageTask(9, b"", b"", path.read_bytes())], begun.append)
    assert (inline.outcome, inline.bytes, inline.sha256) == ("ok", result.bytes, result.sha256)
    assert inline.faces == result.faces
    (empty,) = make_stages().run(make_spec(folder), [ImageTask(9, b"", b"", b"")], begun.append)
    assert empty.error_code == "empty_file"


def test_images_are_taken_up_as_their_crops_are(folder: Path, tmp_path: Path) -> None:
    stages, spec = make_stages(), make_spec(folder)
    assert stages.images_at_once(spec) == 1  # the model is to be loaded first
    stages.classifier(spec)
    assert stages.images_at_once(spec) == 4
    large = make_spec(make_tiny_model(tmp_path / "large", size=224))
    stages.classifier(large)
    assert stages.images_at_once(large) == 2


def test_results_keep_their_order_across_batches_and_failures(folder: Path, tmp_path: Path) -> None:
    tasks = []
    for i in range(11):
        path = tmp_path / f"{i}.png"
        if i % 4 == 2:
            path.write_bytes(b"nonsense")
        else:
            Image.fromarray(np.full((30, 30, 3), 20 * i, np.uint8)).save(path)
        tasks.append(task(path, i))
    signs: list[int] = []
    results = make_stages(signs).run(make_spec(folder), tasks, lambda _: None)
    assert [result.key for result in results] == list(range(11))
    for i, result in enumerate(results):
        if i % 4 == 2:
            assert (result.outcome, result.error_code, result.bytes) == ("failed", "not_an_image", 8)
        else:
            np.testing.assert_allclose(result.faces[0].probabilities, expected(20 * i / 255), atol=1e-4)
    assert len(signs) == 2  # eight crops in batches of four


def test_an_image_without_a_face_is_no_face(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "wall.jpg"
    Image.effect_noise((700, 500), 30).convert("RGB").save(path)
    (result,) = make_stages().run(make_spec(folder, "detect"), [task(path)], lambda _: None)
    assert (result.outcome, result.faces, result.error_code) == ("no_face", (), None)
    assert (result.width, result.height) == (700, 500)


@pytest.mark.shared
def test_a_portrait_gives_the_same_answer_alone_and_among_others(folder: Path, shared: Path) -> None:
    tasks = [task(path, i) for i, path in enumerate(sorted((shared / "photos").glob("*.jpg"))[:6])]
    spec = make_spec(folder, "detect")
    stages = make_stages()
    together = stages.run(spec, tasks, lambda _: None)
    for one, result in zip(tasks, together, strict=True):
        (alone,) = stages.run(spec, [one], lambda _: None)
        assert [(f.x, f.y, f.width, f.height) for f in alone.faces] == [
            (f.x, f.y, f.width, f.height) for f in result.faces
        ]
        for a, b in zip(alone.faces, result.faces, strict=True):
            np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-3)
    assert all(result.outcome == "ok" for result in together)


def test_two_classifiers_are_kept(tmp_path: Path) -> None:
    specs = [make_spec(make_tiny_model(tmp_path / name, name=name)) for name in ("a", "b", "c")]
    stages = make_stages()
    for spec in (specs[0], specs[1], specs[0], specs[2]):
        stages.classifier(spec)
    assert [stages.has_classifier(spec) for spec in specs] == [True, False, True]


def test_a_folder_with_another_revision_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        make_stages().classifier(make_spec(folder, model_revision="0" * 64))
    assert caught.value.code == "model_changed"
