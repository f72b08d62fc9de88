import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.labelled import labelled_folder
from tests.support.machine import ROOT
from training import checkpoint
from training.data import DataError
from training.recipe import Recipe, RecipeError, load_recipe, make_recipe, parse_duration, with_length
from training.train import Trainer

QUIET = {"flip": False, "rotate": 0, "scale": 0, "shift": 0, "shear": 0, "gamma": 0, "contrast": 0, "brightness": 0,
         "noise": 0, "erase": 0, "mixup": 0}  # fmt: skip


def tiny_recipe(root: Path, **parts: dict[str, Any]) -> Recipe:
    content: dict[str, Any] = {
        "name": "tiny",
        "data": [{"path": str(root)}],
        "model": {"kind": "vit", "image_size": 16, "patch_size": 4, "hidden": 24, "depth": 2, "heads": 2},
        "optim": {"steps": 20, "batch": 8, "lr": 2e-3, "layer_decay": 1.0, "warmup": 4, "precision": "fp32"},
        "run": {"threads": 1, "validate_every": 10},
    }
    for name, values in parts.items():
        content[name] = {**content.get(name, {}), **values}
    return make_recipe(content)


def trainer(recipe: Recipe, folder: Path, said: list[str] | None = None) -> Trainer:
    return Trainer(
        recipe, folder, cache=folder.parent / "cache", device="cpu", say=(said if said is not None else []).append
    )


def test_thirty_two_images_are_learned_by_heart(tmp_path: Path) -> None:
    root = labelled_folder(
        tmp_path / "data", {f"{s}/{label}": 16 for s in ("train", "valid") for label in ("a", "b")}, seed=1
    )
    for split in ("valid",):  # the same images: what is asked is whether the network can learn them at all
        for path in sorted((root / split).rglob("*.png")):
            path.write_bytes((root / "train" / path.relative_to(root / split)).read_bytes())
    optim = {"steps": 150, "batch": 32, "lr": 3e-3, "warmup": 10, "weight_decay": 0.0, "ema": 0.9}
    recipe = tiny_recipe(root, optim=optim, augment=QUIET, model={"drop_path": 0.0}, run={"validate_every": 150})
    outcome = trainer(recipe, tmp_path / "run").train()
    assert outcome.metrics["data"]["accuracy"] == 1.0


def test_resuming_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 12, "train/b": 9, "valid/a": 3, "valid/b": 3})
    recipe = tiny_recipe(root, model={"drop_path": 0.2, "dropout": 0.1})
    whole = trainer(recipe, tmp_path / "whole").train()
    cut = trainer(recipe, tmp_path / "cut").train(stop_after=13)
    assert not cut.finished
    rest = trainer(recipe, tmp_path / "cut").train(resume=True)
    assert rest.finished
    first, second = checkpoint.load(whole.weights), checkpoint.load(rest.weights)
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name


def test_killed_in_mid_run_it_goes_on_from_the_last_interval(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 12, "train/b": 9, "valid/a": 3, "valid/b": 3})
    recipe = tiny_recipe(root, optim={"steps": 4000})
    code = (
        "import sys; from pathlib import Path\n"
        "from training.recipe import make_recipe; from training.train import Trainer\n"
        "import json; Trainer(make_recipe(json.loads(sys.argv[1])), Path(sys.argv[2]), device='cpu', say=print).train()"
    )
    arguments = [sys.executable, "-c", code, recipe.model_dump_json(), str(tmp_path / "run")]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    step = checkpoint.load(tmp_path / "run" / "last.pt")["step"]
    assert step % 10 == 0
    resumed = trainer(recipe, tmp_path / "run").train(resume=True, stop_after=step + 5)
    assert resumed.steps == step + 5


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 4, "train/b": 4, "valid/a": 1, "valid/b": 1})
    recipe = tiny_recipe(root, optim={"steps": 2})
    trainer(recipe, tmp_path / "run").train()
    with pytest.raises(RecipeError, match="--resume"):
        trainer(recipe, tmp_path / "run").train()


def test_resuming_nothing_says_so(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 4, "train/b": 4, "valid/a": 1, "valid/b": 1})
    with pytest.raises(RecipeError, match="no checkpoint"):
        trainer(tiny_recipe(root), tmp_path / "run").train(resume=True)


def test_a_budget_anneals_to_its_end(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 4, "train/b": 4, "valid/a": 1, "valid/b": 1})
    recipe = with_length(tiny_recipe(root), budget="1s", steps=None)
    found = trainer(recipe, tmp_path / "run")
    outcome = found.train()
    assert 1.0 <= outcome.seconds < 5.0
    rates = [group["lr"] / group["base_lr"] for group in found.optimizer.param_groups]
    assert max(rates) < 0.1


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 4, "train/b": 4, "valid/a": 2, "valid/b": 2})
    run = {"select": "log_loss", "patience": 1, "validate_every": 2}
    recipe = tiny_recipe(root, optim={"steps": 500, "lr": 1e-9}, run=run)
    outcome = trainer(recipe, tmp_path / "run").train()
    assert outcome.finished
    assert outcome.steps < 500
    assert (tmp_path / "run" / "best.pt").exists()


def test_an_unreadable_image_is_named_and_costs_nothing_else(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 4, "train/b": 4, "valid/a": 1, "valid/b": 1})
    (root / "train" / "a" / "0.png").write_bytes(b"no image")
    said: list[str] = []
    found = trainer(tiny_recipe(root, optim={"steps": 1}), tmp_path / "run", said)
    assert len(found.sources.train[0].canvases.items) == 7
    assert any("train/a/0.png" in note for note in found.sources.notes)


def test_imbalance_is_reported(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 40, "train/b": 2, "valid/a": 1, "valid/b": 1})
    notes = trainer(tiny_recipe(root), tmp_path / "run").sources.notes
    assert any("imbalanced" in note and "data.balance" in note for note in notes)


def test_one_label_alone_is_refused(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 4, "valid/a": 1})
    with pytest.raises(DataError, match="one label"):
        trainer(tiny_recipe(root), tmp_path / "run")


def test_a_missing_valid_split_is_taken_by_label(tmp_path: Path) -> None:
    root = labelled_folder(tmp_path / "data", {"a": 40, "b": 20})
    (root / "a" / "copy.png").write_bytes((root / "a" / "0.png").read_bytes())
    # a seed that draws the image of which there is a copy, and not as the last, which would make it one more
    found = trainer(tiny_recipe(root, run={"seed": 34}), tmp_path / "run").sources
    valid = found.valid[0].canvases.items
    assert {label: sum(item.label == label for item in valid) for label in ("a", "b")} == {"a": 4, "b": 2}
    assert {"a/0.png", "a/copy.png"} <= {item.name for item in valid}
    assert any("one image in ten was set aside" in note for note in found.notes)


HALF = 'name="x"\n[[data]]\npath="."\nlabel_share=0.5\n[model]\nkind="vit"\n'
VIT = 'name="x"\n[[data]]\npath="."\n[model]\nkind="vit"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('name = "x"\n[optim]\nsteps = 1\n', "data: Field required"),
        ("name = ", "not valid TOML"),
        (f"{VIT}[optim]\nsteps=1\nbudget='1m'\n", "exactly one of steps and budget"),
        (f"{VIT}[optim]\nbudget='soon'\n", "no duration"),
        (f"{HALF}[optim]\nsteps=1\n", "needs a \\[teacher\\]"),
        (f"{VIT}layer=3\n[optim]\nsteps=1\n", "model.layer: Extra inputs"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_used_names_the_field(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=problem):
        load_recipe(path)


def test_variables_in_paths_must_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    recipe = tiny_recipe(Path("$SOMEWHERE/data"))
    assert recipe.data[0].root == tmp_path / "data"
    monkeypatch.delenv("SOMEWHERE")
    with pytest.raises(RecipeError, match="SOMEWHERE is not set"):
        _ = recipe.data[0].root


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "recipes").rglob("*.toml")), ids=lambda p: p.name)
def test_every_recipe_of_ours_is_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90m", "1.5h", "45s", "1h30m")] == [5400, 5400, 45, 5400]


def test_a_recipe_for_some_labels_leaves_the_others_out(tmp_path: Path) -> None:
    root = labelled_folder(
        tmp_path / "data", {f"{split}/{label}": 4 for split in ("train", "valid") for label in "abc"}
    )
    recipe = make_recipe({**tiny_recipe(root).model_dump(), "labels": ("c", "a")})
    found = trainer(recipe, tmp_path / "run").sources
    assert found.labels == ("c", "a")
    assert {item.label for item in (*found.train[0].canvases.items, *found.valid[0].canvases.items)} == {"a", "c"}
    assert sorted(found.valid[0].labels.tolist()) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_after_the_step_in_hand(tmp_path: Path, number: int) -> None:
    root = labelled_folder(tmp_path / "data", {"train/a": 12, "train/b": 9, "valid/a": 3, "valid/b": 3})
    recipe = tiny_recipe(root, optim={"steps": 40})
    whole = trainer(recipe, tmp_path / "whole").train()
    cut = trainer(recipe, tmp_path / "cut")
    one_step = cut._one_step

    def interrupted() -> tuple[float, float]:
        result = one_step()
        if cut.step == 17:
            signal.raise_signal(number)
        return result

    cut._one_step = interrupted  # type: ignore[method-assign]
    assert cut.train().steps == 17
    rest = trainer(recipe, tmp_path / "cut").train(resume=True)
    first, second = checkpoint.load(whole.weights), checkpoint.load(rest.weights)
    assert all(torch.equal(tensor, second["weights"][name]) for name, tensor in first["weights"].items())
