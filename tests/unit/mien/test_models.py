"""Model folders are checked field by field; the store keeps every revision and says what it has."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mien.errors import ModelError
from mien.models import ModelStore, load_model, revision_of
from tests.support.tiny_model import LABELS, make_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "tiny")


def edit(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text())
    for name, value in fields.items():
        place = content
        *parents, last = name.split("__")
        for parent in parents:
            place = place[parent]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(content))


def test_a_good_folder(folder: Path) -> None:
    model = load_model(folder)
    assert model.name == "tiny"
    assert model.labels == LABELS
    assert (model.input.height, model.input.width, model.input.smallest_side) == (32, 32, 32)
    assert (model.crop.margin, model.crop.grey) == (0.1, False)
    assert model.onnx_file("fp32") == folder / "model.onnx"
    assert model.onnx_file("int8") is None
    assert model.precisions == {"cpu": ("fp32",), "cuda": ()}
    assert model.revision == revision_of(folder)
    assert len(model.revision) == 64


def test_only_precisions_in_which_workers_take_jobs_are_offered(folder: Path) -> None:
    model = replace(load_model(folder), has_weights=True, onnx=(("int8", "model.int8.onnx"),))
    assert model.precisions == {"cpu": ("fp32", "int8"), "cuda": ("fp32", "bf16", "fp16")}


def test_labels_are_in_the_order_of_their_numbers(folder: Path) -> None:
    edit(folder / "config.json", id2label={"2": "c", "0": "a", "1": "b"})
    assert load_model(folder).labels == ("a", "b", "c")


def test_the_revision_follows_what_decides_the_answers(folder: Path) -> None:
    before = revision_of(folder)
    (folder / "README.md").write_text("a card")
    assert revision_of(folder) == before
    edit(folder / "mien.json", crop__margin=0.2)
    after = revision_of(folder)
    assert after != before
    (folder / "model.safetensors").write_bytes(b"weights")
    assert revision_of(folder) != after


@pytest.mark.parametrize(
    ("file", "fields", "code", "names"),
    [
        ("config.json", {"id2label": ...}, "model_labels", "id2label"),
        ("config.json", {"id2label": {}}, "model_labels", "id2label"),
        ("config.json", {"id2label": {"0": "a", "2": "b"}}, "model_labels", "0 to 1"),
        ("config.json", {"id2label": {"1": "a", "2": "b"}}, "model_labels", "0 to 1"),
        ("config.json", {"id2label": {"a": "0", "b": "1"}}, "model_labels", "not a number"),
        ("config.json", {"id2label": {"0": "a", "1": "a"}}, "model_labels", "twice"),
        ("config.json", {"id2label": {"0": "a", "1": ""}}, "model_labels", "no text"),
        ("config.json", {"id2label": {"0": "a"}}, "model_labels", "single"),
        ("config.json", {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "model_labels", "LABEL_0"),
        ("mien.json", {"format": 2}, "model_config", "format"),
        ("mien.json", {"name": "Not A Name"}, "model_config", "name"),
        ("mien.json", {"name": "../up"}, "model_config", "name"),
        ("mien.json", {"input": ...}, "model_config", "input"),
        ("mien.json", {"input__height": 0}, "model_config", "input.height"),
        ("mien.json", {"input__width": "70"}, "model_config", "input.width"),
        ("mien.json", {"input__resize": "squash"}, "model_config", "input.resize"),
        ("mien.json", {"input__resample": "area"}, "model_config", "input.resample"),
        ("mien.json", {"input__resize": "shortest_edge"}, "model_config", "input.shortest_edge"),
        ("mien.json", {"input__resize": "shortest_edge", "input__shortest_edge": 16}, "model_config", "at least 32"),
        ("mien.json", {"input__mean": [0.5]}, "model_config", "input.mean"),
        ("mien.json", {"input__std": [0.5, 0.5, 0]}, "model_config", "input.std"),
        ("mien.json", {"input__rescale": 255}, "model_config", "input.rescale"),
        ("mien.json", {"crop": ...}, "model_config", "crop"),
        ("mien.json", {"crop__margin": None}, "model_config", "crop.margin"),
        ("mien.json", {"crop__grey": 1}, "model_config", "crop.grey"),
        ("mien.json", {"onnx": {"fp32": "other.onnx"}}, "model_incomplete", "other.onnx"),
        ("mien.json", {"onnx": {"fp32": "../model.onnx"}}, "model_config", "onnx.fp32"),
        ("mien.json", {"onnx": {"fp64": "model.onnx"}}, "model_config", "onnx.fp64"),
        ("mien.json", {"onnx": {}}, "model_incomplete", "nothing to run"),
    ],
)
def test_every_defect_is_named(folder: Path, file: str, fields: dict[str, Any], code: str, names: str) -> None:
    edit(folder / file, **fields)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert caught.value.code == code
    assert names in caught.value.detail
    assert str(folder) in caught.value.detail


def test_missing_and_broken_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder") as caught:
        load_model(tmp_path / "nowhere")
    assert caught.value.code == "model_missing"
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json.*not valid JSON"):
        load_model(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="JSON object"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(folder)


def test_installing_is_atomic_and_idempotent(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("card")
    (folder / "training_state.bin").write_bytes(b"not part of it")
    store = ModelStore(tmp_path / "store")
    first = store.install(folder)
    assert first.folder == tmp_path / "store" / "tiny" / first.revision
    assert sorted(p.name for p in first.folder.iterdir()) == [
        "README.md", "config.json", "mien.json", "model.onnx", "preprocessor_config.json",
    ]  # fmt: skip
    assert store.install(folder) == first
    assert store.list() == [first]
    assert [p.name for p in (tmp_path / "store" / "tiny").iterdir()] == [first.revision]


def test_two_processes_install_at_once(folder: Path, tmp_path: Path) -> None:
    code = "import sys; from mien.models import ModelStore as M; print(M(sys.argv[1]).install(sys.argv[2]).revision)"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "store"), str(folder)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        )
        for _ in range(2)
    ]  # fmt: skip
    assert {process.communicate()[0].strip() for process in both} == {revision_of(folder)}
    assert [process.returncode for process in both] == [0, 0]
    assert len(ModelStore(tmp_path / "store").list()) == 1


def test_models_are_found_by_name_and_revision(folder: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    old = store.install(folder)
    edit(folder / "mien.json", crop__margin=0.3)
    new = store.install(folder)
    other = store.install(make_tiny_model(tmp_path / "other", name="other"))
    assert {model.revision for model in store.list()} == {old.revision, new.revision, other.revision}
    assert store.get(old.revision) == old
    assert store.get(f"tiny@{old.revision[:6]}") == old
    assert store.get(new.revision[:10]) == new
    assert store.get("tiny").revision in (old.revision, new.revision)
    assert store.get("other") == other
    for unknown in ("nobody", "tiny@ffff", old.revision[:3], "", "../tiny", "ffffffffff"):
        with pytest.raises(ModelError) as caught:
            store.get(unknown)
        assert caught.value.code == "unknown_model"
        assert f"other@{other.revision[:12]}" in caught.value.detail


def test_the_default_is_the_chosen_one_else_the_shipped_one(folder: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store", shipped=folder)
    with pytest.raises(ModelError, match="No model is installed"):
        store.default()
    shipped = store.ensure_shipped()
    assert shipped == store.default() == store.get("default") == store.get("tiny")
    other = store.install(make_tiny_model(tmp_path / "other", name="other"))
    assert store.default() == shipped
    assert store.set_default("other") == other
    assert store.default() == store.ensure_shipped() == ModelStore(tmp_path / "store").get("default") == other
    assert store.set_default("default") == shipped


def test_an_upgrade_keeps_older_revisions(folder: Path, tmp_path: Path) -> None:
    old = ModelStore(tmp_path / "store", shipped=folder).ensure_shipped()
    edit(folder / "mien.json", crop__margin=0.3)
    store = ModelStore(tmp_path / "store", shipped=folder)
    new = store.ensure_shipped()
    assert new.revision != old.revision
    assert store.default() == store.get("tiny") == new
    assert store.get(old.revision) == old
    assert old.folder.is_dir()


def test_an_installed_model_that_was_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    model = ModelStore(tmp_path / "store").install(folder)
    edit(model.folder / "config.json", id2label={"0": "x", "1": "y", "2": "z"})
    with pytest.raises(ModelError) as caught:
        ModelStore(tmp_path / "store").get("tiny")
    assert caught.value.code == "model_changed"


def test_a_store_that_cannot_be_written_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(ModelError, match="cannot be copied") as caught:
        ModelStore(tmp_path / "store").install(folder)
    assert caught.value.code == "model_store"


def test_the_package_reads_models_without_numpy_or_torch() -> None:
    code = "import mien.models, mien.pipeline, sys; assert not {'numpy', 'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
