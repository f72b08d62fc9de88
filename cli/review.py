"""``mien review``: samples and their figures, answers as files, and training images made of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.output import count, say, show_json, show_table

if TYPE_CHECKING:
    from mien.wire_reviews import Review, Share

MODE = click.Choice(["check", "mend"])


@click.group()
def review() -> None:
    """People's answers beside the model's: samples, figures, files, training images.

    Faces are rated on the pages (`mien up`), or through the API.
    """


@review.command()
@click.argument("job_id", metavar="ID")
@click.option("--size", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Faces to draw.")
@click.option("--seed", type=click.IntRange(0), help="Draws the same sample again.")
def draw(job_id: str, *, size: int, seed: int | None) -> None:
    """Draw a random sample of a job's faces to check the model by."""
    from cli.system import readable_mien
    from mien.settings import load_settings

    with readable_mien(load_settings()) as client:
        made = client.begin_review(job_id, size=size, seed=seed)
    click.echo(made.id)
    say(
        f"{count(made.drawn or 0, 'face')} of {made.faces:,} drawn (seed {made.seed}); rate them at /reviews/{made.id}."
    )


@review.command("list")
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_(job_id: str, *, as_json: bool) -> None:
    """List a job's reviews and how far their raters are."""
    from cli.system import readable_mien
    from mien.settings import load_settings

    with readable_mien(load_settings()) as client:
        found = client.reviews(job_id)
    if as_json:
        show_json([one.model_dump(mode="json") for one in found])
        return
    if not found:
        say(f"There are no reviews of this job yet; `mien review draw {job_id}` begins one.")
        return
    rows = [(one.id, one.mode, one.left if one.mode == "check" else "", _raters(one)) for one in found]
    show_table(("review", "mode", "faces", "raters"), rows, right=(2,))


@review.command()
@click.argument("review_id", metavar="REVIEW")
@click.option("--json", "as_json", is_flag=True, help="As JSON, as the API gives it.")
def figures(review_id: str, *, as_json: bool) -> None:
    """Show what a check says: accuracy per label with 95% intervals, Cohen's kappa."""
    from cli.system import readable_mien
    from mien.settings import load_settings

    with readable_mien(load_settings()) as client:
        found = client.review_figures(review_id)
    if as_json:
        show_json(found.model_dump(mode="json"))
        return
    click.echo(f"accuracy {_share(found.accuracy)}, of {found.faces:,} faces from {found.told:,} rated ones")
    rows = [(one.label, _share(one.precision), _share(one.recall)) for one in found.per_label]
    show_table(("label", "precision (95%)", "recall (95%)"), rows)
    for rater in found.raters:
        click.echo(f"{rater.rater} and the model: {_share(rater.accuracy)}, kappa {_kappa(rater.kappa)}")
    for pair in found.pairs:
        click.echo(f"{' and '.join(pair.raters)}: {_share(pair.agreement)}, kappa {_kappa(pair.kappa)}")


@review.command()
@click.argument("job_id", metavar="ID")
@click.option("--csv", type=click.Path(), metavar="FILE", help="One row per answer, with mode and rater.")
@click.option("--jsonl", type=click.Path(), metavar="FILE", help="One JSON object per answer.")
def export(job_id: str, *, csv: str | None, jsonl: str | None) -> None:
    """Write all answers about a job's faces. Without an option: the CSV, to standard output."""
    from cli.output import check_target, whole_file
    from cli.system import readable_mien
    from mien.settings import load_settings

    targets = {"answers.csv": csv, "answers.jsonl": jsonl}
    with readable_mien(load_settings()) as client:
        if not csv and not jsonl:
            client.download(job_id, "answers.csv", sys.stdout.buffer)
            return
        for what, target in targets.items():
            if target is not None:
                check_target(Path(target), f"--{what.removeprefix('answers.')}")
                with whole_file(Path(target)) as file:
                    client.download(job_id, what, file)  # type: ignore[arg-type]
                say(f"Wrote {target}.")


@review.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="A new folder.")
@click.option("--mode", type=MODE, help="Only answers given in this mode; all by default.")
def dataset(job_ids: tuple[str, ...], *, out: Path, mode: str | None) -> None:
    """Make training images of the reviewed faces of jobs: crops as the worker saw them, raters' answers as votes.

    Reads the ledger and the photographs, so it runs where they are.
    """
    from cli.ledger import open_ledger
    from mien.settings import load_settings
    from training.reviewed import write_reviewed

    settings = load_settings()
    with open_ledger(settings) as db:
        made = write_reviewed(db, settings, job_ids, out, mode=mode, say=say)
    for file, reason in made.left_out[:20]:
        say(f"left out: {file}: {reason}")
    if len(made.left_out) > 20:
        say(f"... and {len(made.left_out) - 20:,} more; {out / 'dataset.json'} names all.")
    labels = ", ".join(f"{label} {number:,}" for label, number in sorted(made.per_label.items()))
    say(f"{out}: {count(made.crops, 'face')} with {count(made.votes, 'vote')}: {labels}.")
    say(f'In a recipe: path = "{out}", votes = "votes.csv", faces = "whole".')
    raise click.exceptions.Exit(3 if made.left_out else 0)


def _raters(one: Review) -> str:
    return ", ".join(f"{rater.rater} {rater.answers:,}" for rater in one.raters) or "none"


def _share(share: Share) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "not known"
    return f"{100 * share.value:.1f}% ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _kappa(value: Any) -> str:
    return "not defined" if value is None else f"{value:.2f}"


commands = [review]
