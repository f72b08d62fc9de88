"""``mien compare``: two jobs over the same images, side by side."""

from __future__ import annotations

import csv
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.output import check_target, count, say, show_json, show_table, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mien.wire_compare import Comparison, Difference

COLUMNS = ("file", "outcome_a", "outcome_b", "face_a", "emotion_a", "confidence_a", "face_b", "emotion_b",
           "confidence_b")  # fmt: skip


@click.command()
@click.argument("job_a")
@click.argument("job_b")
@click.option("--differences", type=click.IntRange(0), default=20, show_default=True, help="Show so many differences.")
@click.option("--csv", "table", metavar="FILE", help="Write every difference to a CSV. - for standard output.")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
def compare(job_a: str, job_b: str, *, differences: int, table: str | None, as_json: bool) -> None:
    """Compare two jobs over the same images: another model, another precision, other options.

    Says how far they agree, what one calls that the other calls otherwise, on which images they differ and, where
    people have checked one of them (a review in mode check), which is right more often. `mien rerun JOB_A --model
    OTHER` makes the second job.
    """
    from cli.system import readable_mien
    from mien.settings import load_settings

    if table and table != "-":
        check_target(Path(table), "--csv")
    with readable_mien(load_settings()) as client:
        found = client.compare(job_a, job_b)
        if as_json:
            show_json(found.model_dump(mode="json"))
        elif table != "-":
            _show(found)
        if table == "-":
            _write(client.differences(job_a, job_b), sys.stdout)
        elif table:
            with whole_file(Path(table)) as file:
                import io

                text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="", write_through=True)
                _write(client.differences(job_a, job_b), text)
                text.detach()
            say(f"Written: {table}")
        elif differences and not as_json and found.images.differ:
            _show_differences(islice(client.differences(job_a, job_b), differences), found.images.differ)


def _show(found: Comparison) -> None:
    click.echo(f"A: {found.a.job}  {found.a.model} ({found.a.revision[:12]})")
    click.echo(f"B: {found.b.job}  {found.b.model} ({found.b.revision[:12]})\n")
    pictures, faces = found.images, found.faces
    show_table(
        ("images", ""),
        [
            ("compared", f"{pictures.same:,}"),
            ("of these differ", f"{pictures.differ:,}"),
            *((name, f"{n:,}") for name, n in (
                ("changed between the jobs", pictures.changed), ("not read by both", pictures.not_read),
                ("only in A", pictures.only_a), ("only in B", pictures.only_b),
            ) if n),
        ],
        right=(1,),
    )  # fmt: skip
    click.echo()
    if found.agreement is None:
        click.echo("No face was found by both.")
    else:
        kappa = "" if found.kappa is None else f"; Cohen's kappa {found.kappa:.3f}"
        click.echo(f"{faces.agree:,} of {count(faces.matched, 'face')} alike: {100 * found.agreement:.1f} %{kappa}")
        if faces.only_a or faces.only_b:
            click.echo(f"Found by A alone: {faces.only_a:,}; by B alone: {faces.only_b:,}")
        click.echo()
        show_table(
            ("A \\ B", *found.b.labels),
            [(label, *(f"{n:,}" for n in row)) for label, row in zip(found.a.labels, found.confusion, strict=True)],
            right=tuple(range(1, len(found.b.labels) + 1)),
        )
    click.echo()
    _show_checked(found)


def _show_checked(found: Comparison) -> None:
    checked = found.checked
    if checked is None:
        click.echo("Nobody has checked either job yet: which is right is not known (Review, mode check).")
        return
    if checked.p_value is None:
        click.echo("No checked face tells which is right.")
        return
    right_a, right_b = checked.both_right + checked.only_a_right, checked.both_right + checked.only_b_right
    click.echo(f"On {count(checked.faces, 'checked face')}: A right on {right_a:,}, B right on {right_b:,};")
    click.echo(
        f"A alone right {checked.only_a_right:,}, B alone right {checked.only_b_right:,}: "
        f"McNemar's exact test gives p = {checked.p_value:.4g}."
    )


def _show_differences(found: Iterable[Difference], total: int) -> None:
    rows = [tuple(str(cell) for cell in row[:1] + row[4:6] + row[7:]) for item in found for row in _rows(item)]
    click.echo()
    show_table(("file", "A", "confidence", "B", "confidence"), rows, right=(2, 4))
    shown = len({row[0] for row in rows})
    if shown < total:
        click.echo(f"... and {total - shown:,} more images; --csv FILE writes them all.")


def _write(found: Iterable[Difference], file: Any) -> None:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for item in found:
        writer.writerows(_rows(item))


def _rows(item: Difference) -> Iterator[tuple[Any, ...]]:
    """A row per face that differs; one where only the outcomes do."""
    head = (item.file, item.outcome_a, item.outcome_b)
    for pair in item.faces:
        sides = [(side.face, side.emotion, side.confidence) if side else ("", "", "") for side in (pair.a, pair.b)]
        yield (*head, *sides[0], *sides[1])
    if not item.faces:
        yield (*head, "", item.outcome_a, "", "", item.outcome_b, "")


commands = [compare]
