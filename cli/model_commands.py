"""``mien explore``, ``train``, ``evaluate``, ``package``, ``predict``, ``models``, ``train-demo``: making, judging,
keeping models. All but ``models list``, ``default`` and ``verify`` need torch (the extra ``training``)."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.output import say, show_json, show_table

if TYPE_CHECKING:
    from mien.model_folder import Model
    from mien.models import ModelStore

PRECISIONS = click.Choice(["fp32", "int8", "bf16"])
FACES = click.Choice(["whole", "detect"])
FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("data", type=FOLDER)
@click.option("--votes", help="CSV of raters' votes below DATA (found by itself if it is votes.csv).")
@click.option("--out", type=FOLDER, default=Path("explore"), show_default=True, help="Folder for the report.")
def explore(data: Path, votes: str | None, out: Path) -> None:
    """Look at a folder of labelled images: counts, sizes, brightness, duplicates, unreadable files."""
    _need("sklearn", "training")
    from training.explore import explore as look
    from training.explore import write_report

    content = write_report(look(data, votes=votes, progress=_progress("reading")), out)
    for split, counts in content["counts"].items():
        say(f"{split}: " + ", ".join(f"{label} {count}" for label, count in sorted(counts.items())))
    say(
        f"{len(content['unreadable'])} unreadable; {len(content['duplicates']['exact'])} groups of duplicates, "
        f"{len(content['duplicates']['exact_across_splits'])} of them across splits."
    )
    say(f"The report is {out / 'explore.html'}.")


@click.command()
@click.argument("recipe", type=FOLDER)
@click.option("--run", type=FOLDER, help="Folder of the run; runs/NAME of the recipe by default.")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option("--budget", help="Time for the whole run, such as 90m: the schedule anneals to its end.")
@click.option("--steps", type=click.IntRange(1), help="Steps of the whole run, in the place of the recipe's length.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
def train(recipe: Path, *, run: Path | None, resume: bool, budget: str | None, steps: int | None, device: str) -> None:
    """Train a model as a recipe file says. Ctrl-C saves the state; --resume goes on with it."""
    _need("torch", "training")
    from training.recipe import load_recipe, with_length
    from training.train import Trainer

    plan = with_length(load_recipe(recipe), budget=budget, steps=steps)
    folder = run or Path("runs") / plan.name
    outcome = Trainer(plan, folder, device=device, say=say).train(resume=resume)
    if not outcome.finished:
        click.get_current_context().exit(130)
    say(f"The weights are {outcome.weights}; `mien package {folder} FOLDER` makes a model of them.")


@click.command()
@click.argument("model")
@click.argument("data", type=FOLDER)
@click.option("--split", help="valid, test or train; by default valid, else test, else all images.")
@click.option("--votes", help="CSV of raters' votes below DATA (found by itself if it is votes.csv).")
@click.option("--faces", type=FACES, default="whole", show_default=True, help="detect: crop as the worker does.")
@click.option("--precision", type=PRECISIONS, default="fp32", show_default=True, help="Precision of the model.")
@click.option("--margin", type=float, help="Another crop margin than the model's own.")
@click.option("--map", "renamed", multiple=True, metavar="OLD=NEW", help="Rename a label of DATA.")
@click.option("--compare", metavar="MODEL", help="Another model, compared on the same images by McNemar's test.")
@click.option("--out", type=FOLDER, default=Path("evaluation"), show_default=True, help="Folder for the report.")
def evaluate(
    model: str, data: Path, *, renamed: tuple[str, ...], compare: str | None, out: Path, **options: Any
) -> None:
    """Judge MODEL (installed, or a folder) on labelled images in DATA."""
    _need("sklearn", "training")
    from training.evaluate import evaluate as judge
    from training.evaluate import write_report

    wrong = [entry for entry in renamed if entry.count("=") != 1]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not OLD=NEW", param_hint="--map")
    names = {old.lower(): new.lower() for old, new in (entry.split("=") for entry in renamed)}
    other = _model(compare) if compare else None
    found = judge(_model(model), data, rename=names, other=other, **options)
    write_report(found, out)
    s = found.scores
    say(f"accuracy {100 * s.accuracy:.2f}% ({100 * s.accuracy_interval[0]:.1f} to {100 * s.accuracy_interval[1]:.1f})")
    say(f"balanced accuracy {100 * s.balanced_accuracy:.2f}%, macro F1 {s.macro_f1:.3f}, log loss {s.log_loss:.3f}")
    say(f"(the most frequent label alone: {100 * s.majority_accuracy:.2f}%)")
    if found.comparison:
        say(
            f"beside {compare}: {found.comparison['accuracy_other']:.4f}, "
            f"p = {found.comparison['mcnemar']['p_value']:.3g}"
        )
    say(f"The report is {out / 'evaluation.html'}.")


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("folder", type=FOLDER)
@click.option("--name", help="Name of the model; the recipe's by default.")
@click.option(
    "--judge",
    "judged",
    multiple=True,
    metavar="DATA[:detect]",
    help="Labelled images to judge it on; the first set the temperature.",
)
@click.option("--margin", type=float, help="Crop margin in serving; the middle of those in training by default.")
@click.option("--card", type=FOLDER, metavar="FILE", help="TOML with what the model card says besides figures.")
@click.option("--install", is_flag=True, help="Install it for jobs at once.")
def package(
    run: Path,
    folder: Path,
    *,
    name: str | None,
    judged: tuple[str, ...],
    margin: float | None,
    card: Path | None,
    install: bool,
) -> None:
    """Make the model folder FOLDER of a finished RUN: calibrated, exported, quantised, judged, with its card."""
    _need("torch", "training")
    from training.package import network_of
    from training.release import Judge, read_card, release, write_figures

    content = read_card(card) if card else None
    judges = [
        Judge(Path(path.removesuffix(":detect")), "detect" if path.endswith(":detect") else "whole") for path in judged
    ]
    found = release(
        run, folder, name=name or network_of(run)[1].name, judges=judges, margin=margin, card=content, say=say
    )
    write_figures(found, run / "figures.json")
    shutil.copyfile(run / "figures.json", folder / "figures.json")
    say(f"{folder}: revision {found.packaged.model.revision[:12]}, {sum(found.packaged.megabytes.values()):.1f} MB")
    if install:
        _install(folder)


@click.command()
@click.argument("images", nargs=-1, required=True, type=FOLDER)
@click.option("--model", default="default", show_default=True, help="An installed model, or a folder.")
@click.option("--faces", type=FACES, default="detect", show_default=True, help="Find faces, or take whole images.")
@click.option("--precision", type=PRECISIONS, default="fp32", show_default=True, help="Precision of the model.")
@click.option(
    "--explain", type=FOLDER, metavar="FOLDER", help="Write each picture there with boxes and an attention heat map."
)
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def predict(
    images: tuple[Path, ...], *, model: str, faces: str, precision: str, explain: Path | None, as_json: bool
) -> None:
    """Print the faces of IMAGES with their labels, without a server or a job."""
    if explain:
        _need("torch", "training")
    from training.answer import answer

    chosen = _model(model)
    explainer = None
    rows: list[dict[str, Any]] = []
    failed = 0
    for result in answer(chosen, images, detect=faces == "detect", precision=precision):
        failed += result.error is not None
        rows.append(result.as_dict())
        if not as_json:
            _show_prediction(result)
        if explain and result.faces:
            from training.explain import Explainer, explain_answer

            explainer = explainer or Explainer(chosen)
            say(f"wrote {explain_answer(explainer, result, explain, whole=faces == 'whole')}")
    if as_json:
        show_json(rows)
    if failed:
        click.get_current_context().exit(3)


def _show_prediction(result: Any) -> None:
    if result.error is not None:
        say(f"{result.path}: {result.error}")
    elif not result.faces:
        say(f"{result.path}: no face")
    for number, face in enumerate(result.faces):
        ranked = sorted(zip(result.labels, face.probabilities, strict=True), key=lambda pair: -pair[1])
        shares = "  ".join(f"{label} {p:.3f}" for label, p in ranked)
        b = face.box
        click.echo(f"{result.path}  face {number}  at {b.x:.0f},{b.y:.0f} {b.width:.0f}x{b.height:.0f}  {shares}")


@click.group()
def models() -> None:
    """Models: those that jobs can name."""


@models.command()
@click.argument("source", metavar="PATH|HUB_ID@COMMIT")
@click.option("--name", help="Name of the model; the source's by default.")
@click.option("--margin", type=float, help="Crop margin: share of the box's longer side added on each side.")
@click.option("--grey", is_flag=True, help="Convert crops to grey.")
@click.option(
    "--calibrate", type=FOLDER, metavar="FOLDER", help="Labelled images: make an int8 export and measure its cost."
)
@click.option(
    "--faces", type=FACES, default="detect", show_default=True, help="How the images of --calibrate are cropped."
)
def add(source: str, *, name: str | None, margin: float | None, grey: bool, calibrate: Path | None, faces: str) -> None:
    """Install a model: a packaged folder as it is, or any Hugging Face image classifier."""
    if (Path(source) / "mien.json").exists():
        _install(Path(source))
        return
    _need("torch", "models")
    import tempfile

    from training.adopt import adopt

    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "model"
        made = adopt(source, target, name=name, margin=margin, grey=grey, calibrate=calibrate, faces=faces, say=say)
        if made.model.notes:
            say(made.model.notes)
        _install(target)


@models.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_models(as_json: bool) -> None:
    """List the installed models; the default one has a star."""
    store = _store()
    default = store.default()
    found = store.list()
    if as_json:
        show_json([{**_model_row(m), "default": m.revision == default.revision} for m in found])
        return
    rows = [
        ("*" if m.revision == default.revision else "", m.name, m.revision[:12], f"{m.input.height}x{m.input.width}",
         ", ".join(p for p, _ in m.onnx), ", ".join(m.labels)) for m in found
    ]  # fmt: skip
    show_table(("", "name", "revision", "input", "exports", "labels"), rows)


@models.command()
@click.argument("model")
def default(model: str) -> None:
    """Make MODEL (NAME or NAME@REVISION) the one that jobs use when they name none; `default` is the shipped one."""
    chosen = _store().set_default(model)
    say(f"The default model is {chosen.name}, revision {chosen.revision[:12]}.")


@models.command()
@click.argument("model", required=False)
def verify(model: str | None) -> None:
    """Check MODEL, or all installed ones: files against their revision, and that they answer."""
    from mien.model_folder import revision_of
    from worker.classifier import open_classifier

    store = _store()
    for found in [store.get(model)] if model else store.list():
        if revision_of(found.folder) != found.revision:
            from mien.errors import ModelError

            raise ModelError(f"The files of {found.name!r} have changed since it was installed.", code="model_changed")
        for precision, _ in found.onnx:
            open_classifier(found, "cpu", precision)
        say(f"{found.name}  {found.revision[:12]}  ok ({', '.join(p for p, _ in found.onnx) or 'torch only'})")


@click.command(name="train-demo")
@click.option(
    "--out", type=FOLDER, default=Path("runs/train-demo"), show_default=True, help="Folder for images, run and model."
)
def train_demo(out: Path) -> None:
    """Train a small ViT from scratch on drawn faces, and install it: two minutes from images to a model."""
    _need("torch", "training")
    import shutil

    from training.demo import run_demo

    for part in ("faces", "run", "model", "cache"):
        shutil.rmtree(out / part, ignore_errors=True)
    found, scores = run_demo(out, say=say)
    say(f"accuracy on drawn faces that it has not seen: {100 * scores.accuracy:.1f}%")
    _install(found.packaged.model.folder)
    say(f"Try it: mien classify {out / 'faces' / 'valid'} --model train-demo --faces whole")


def _store() -> ModelStore:
    from mien.models import ModelStore
    from mien.resources import resource
    from mien.settings import load_settings

    store = ModelStore(load_settings().models, resource("models/default"))
    store.ensure_shipped()
    return store


def _model(ref: str) -> Model:
    """An installed model, or a folder."""
    from mien.model_folder import load_model

    if (Path(ref) / "mien.json").exists():
        return load_model(Path(ref))
    return _store().get(ref)


def _install(folder: Path) -> None:
    model = _store().install(folder)
    say(f"Installed {model.name}, revision {model.revision[:12]}; jobs name it as --model {model.name}.")


def _model_row(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "revision": model.revision,
        "labels": list(model.labels),
        "input": [model.input.height, model.input.width],
        "margin": model.crop.margin,
        "grey": model.crop.grey,
        "precisions": {device: list(found) for device, found in model.precisions.items()},
        "notes": model.notes,
    }


def _progress(what: str) -> Callable[[int, int], None]:
    return lambda done, total: say(f"{what} {done:,} of {total:,}") if done and done % 5000 == 0 else None


def _need(module: str, extra: str) -> None:
    from mien.errors import UnavailableError

    if importlib.util.find_spec(module) is None:
        raise UnavailableError(f"This needs {module}: install mien[{extra}].", code="missing_package")


commands: list[click.Command] = [explore, train, evaluate, package, predict, models, train_demo]
