"""``mien classify``: a folder in, one row per face out."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cli.output import check_target, count, say, seconds, show_table, whole_file
from mien.errors import MienError, SourceError, UnavailableError

if TYPE_CHECKING:
    from mien.client import Client, Download
    from mien.settings import Settings
    from mien.wire import JobStatus

WORTH_SAYING = 0.1
"""Share of a job's time that int8 has to save for it to be mentioned."""
SOME_FAILED = 3
NOT_DONE = 4
CTRL_C = 130
TOLD_TO_STOP = 143
PATIENCE_S = 5.0
"""How long a local front end may be away before its whole system is taken for dead and started again."""
RESTARTS = 5


@dataclass(frozen=True)
class Output:
    """One file to write: which export, and where. ``-`` is standard output."""

    kind: Download
    path: str
    option: str

    @property
    def is_stdout(self) -> bool:
        """Whether it goes to standard output."""
        return self.path == "-"


def output_options(command: Any) -> Any:
    """The options that name files to write, for ``classify`` and ``results``."""
    for option, meaning in (
        ("--errors-csv", "One row per image that could not be read."),
        ("--images-csv", "One row per image: outcome, faces, dominant emotion."),
        ("--parquet", "The rows of --csv as Parquet, with the provenance in the file."),
        ("--jsonl", "One JSON object per image, with its faces."),
        ("--csv", "One row per face, and one for an image without any."),
    ):
        command = click.option(option, metavar="FILE", help=f"{meaning} - for standard output.")(command)
    return command


def outputs_of(
    csv: str | None, jsonl: str | None, images_csv: str | None, errors_csv: str | None, parquet: str | None = None
) -> list[Output]:
    """The files asked for, each checked so far as that can be done before there is anything to write."""
    asked = [
        Output("results.csv", csv, "--csv") if csv else None,
        Output("results.jsonl", jsonl, "--jsonl") if jsonl else None,
        Output("images.csv", images_csv, "--images-csv") if images_csv else None,
        Output("errors.csv", errors_csv, "--errors-csv") if errors_csv else None,
        Output("results.parquet", parquet, "--parquet") if parquet else None,
    ]
    outputs = [output for output in asked if output is not None]
    if len({"-" if o.is_stdout else os.path.realpath(o.path) for o in outputs}) < len(outputs):
        raise click.UsageError("Two of the outputs are the same file.")
    for output in outputs:
        if not output.is_stdout:
            check_target(Path(output.path), output.option)
    return outputs


def job_options(command: Any) -> Any:
    """The options of a job on a folder, for ``classify`` and ``upload``."""
    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


_JOB_OPTIONS = (
    click.option("--recursive/--no-recursive", default=True, show_default=True, help="Walk sub-folders too."),
    click.option("--include", multiple=True, metavar="PATTERN", help="Files to take, instead of by ending: '*.jpg'."),
    click.option(
        "--exclude", multiple=True, metavar="PATTERN", help="Files to leave out: 'thumbs/*'. May be repeated."
    ),
    click.option("--model", help="An installed model: NAME or NAME@REVISION. See `mien models`."),
    click.option(
        "--faces",
        type=click.Choice(["detect", "whole"]),
        default="detect",
        show_default=True,
        help="Find faces, or classify each image as it is (folders of crops).",
    ),
    click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16", "int8"]), help="Precision of the model."),
    click.option("--detect-size", type=int, metavar="PIXELS", help="Longer side at which faces are looked for."),
    click.option("--min-face-score", type=float, metavar="SCORE", help="Lowest detector score that counts as a face."),
    click.option("--min-face", type=int, metavar="PIXELS", help="Smallest face that counts, by its shorter side."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the job. May be repeated."),
)


@click.command()
@click.argument("folder", type=click.Path())
@output_options
@job_options
def classify(
    folder: str,
    *,
    csv: str | None,
    jsonl: str | None,
    images_csv: str | None,
    errors_csv: str | None,
    parquet: str | None,
    recursive: bool,
    include: Sequence[str],
    exclude: Sequence[str],
    metadata: Sequence[str],
    **options: Any,
) -> None:
    """Classify every face in the photographs of FOLDER (or s3://BUCKET/PREFIX, in object storage).

    Uses the Mien that runs (see `mien up`), or starts one for as long as it takes. Without an output option the rows
    go to results.csv. Beside each CSV stands NAME.job.json: how the results were made.

    Ctrl-C leaves the job where it is; `mien status ID --wait` goes on with it. Exit code 3 says that some images could
    not be read (their rows say why), 4 that the job was cancelled or failed.
    """
    from cli.system import working_mien
    from mien.settings import load_settings

    settings = load_settings()
    path = folder if folder.startswith("s3://") else _folder(Path(folder), settings)
    extras = metadata_of(metadata)
    _check_int8(options.get("precision"), settings)
    outputs = outputs_of(csv, jsonl, images_csv, errors_csv, parquet) or outputs_of("results.csv", None, None, None)
    with stop_on_term(), working_mien(settings) as client:
        job = client.submit_folder(
            path, recursive=recursive, include=include, exclude=exclude, metadata=extras, **options
        )
        say(f"Job {job.id}: {job.source.path}")
        job = follow(client, job, settings, outputs)
        write_outputs(client, job, outputs)
        show_summary(client, job, outputs)
    raise click.exceptions.Exit(exit_code(job))


def follow(client: Client, job: JobStatus, settings: Settings, outputs: Sequence[Output] = ()) -> JobStatus:
    """Show the job's progress until it has ended. A local system that dies meanwhile is started again.

    Raises:
        Exit: Ctrl-C, or told to stop; after saying how to come back to the job.
    """
    from cli.progress import JobProgress

    now = job
    try:
        with JobProgress() as progress:
            progress.show(now)
            for attempt in range(RESTARTS + 1):
                try:
                    for now in client.wait(job.id, **_patience(settings)):
                        progress.show(now)
                    break
                except UnavailableError:
                    if settings.url or attempt == RESTARTS:
                        raise
                    _find_again(settings, client)
    except KeyboardInterrupt as stop:
        _say_how_to_come_back(now, outputs)
        raise click.exceptions.Exit(TOLD_TO_STOP if isinstance(stop, ToldToStop) else CTRL_C) from None
    except UnavailableError:
        _say_how_to_come_back(now, outputs)
        raise
    return now


def _patience(settings: Settings) -> dict[str, float]:
    return {} if settings.url else {"patience_s": PATIENCE_S}


def _find_again(settings: Settings, client: Client) -> None:
    """After the local system fell silent: the running one, or a new one, at whatever address it has now."""
    from cli.system import ensure_running

    client.url = ensure_running(settings).url


def write_outputs(client: Client, job: JobStatus, outputs: Sequence[Output]) -> None:
    """Download each export; a file appears under its name only when it is whole. Beside each CSV: its provenance."""
    for output in outputs:
        if output.is_stdout:
            client.download(job.id, output.kind, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            continue
        with whole_file(Path(output.path)) as file:
            client.download(job.id, output.kind, file)
        if output.kind.endswith(".csv"):
            with whole_file(provenance_path(Path(output.path))) as file:
                facts = json.dumps(client.provenance(job.id), indent=2, ensure_ascii=False)
                file.write(facts.encode("utf-8", "surrogatepass") + b"\n")


def provenance_path(csv: Path) -> Path:
    """Where the provenance of a CSV stands: ``results.csv`` -> ``results.job.json``."""
    return csv.with_name(f"{csv.stem if csv.suffix else csv.name}.job.json")


def show_summary(client: Client, job: JobStatus, outputs: Sequence[Output]) -> None:
    """What was found, and where it is. On standard error when standard output carries results."""
    err = any(output.is_stdout for output in outputs)
    summary = client.summary(job.id)
    click.echo(err=err)
    if job.counts.faces:
        found = sorted(summary.faces.items(), key=lambda item: (-item[1], item[0]))
        rows = [(emotion, f"{n:,}", f"{100 * n / job.counts.faces:.0f} %") for emotion, n in found]
        show_table(("emotion", "faces", "share"), rows, right=(1, 2), err=err)
        click.echo(err=err)
    counts = job.counts
    meanings = (
        ("with faces", counts.ok),
        ("without a face", counts.no_face),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("pending", counts.pending),
    )
    rows_of_images = [(name, f"{n:,}") for name, n in meanings if n or name in ("with faces", "without a face")]
    show_table(("images", ""), rows_of_images, right=(1,), err=err)
    for code, n in sorted(summary.errors.items()):
        click.echo(f"  {code}: {n:,}", err=err)
    if counts.skipped:
        click.echo(f"({count(counts.skipped, 'other file')} passed over)", err=err)
    rate = f" at {job.images_per_s:.1f} images/s" if job.images_per_s else ""
    click.echo(f"\n{count(counts.total, 'image')}, {count(counts.faces, 'face')}{_duration(job)}{rate}", err=err)
    if job.error:
        click.echo(f"The job failed: {job.error.detail}", err=err)
    if not job.complete:
        click.echo("Not every image has its outcome yet: what was written is incomplete.", err=err)
    if hint := int8_hint(client, job):
        click.echo(hint, err=err)
    written = [str(Path(output.path)) for output in outputs if not output.is_stdout]
    if written:
        click.echo(f"Written: {', '.join(written)}", err=err)
    click.echo("A label is a model's reading of an expression; it is not what a person feels.", err=err)


def _check_int8(precision: str | None, settings: Settings) -> None:
    """Where this machine does all the work, a precision that it cannot give is told before anything is started."""
    from mien.int8 import MISSING, int8_instructions

    if precision == "int8" and not settings.url and settings.embedded_broker and not int8_instructions():
        raise click.UsageError(f"--precision int8 is not offered here: {MISSING}.")


def int8_hint(client: Client, job: JobStatus) -> str | None:
    """What ``--precision int8`` would have gained and cost this job; None where it is no question."""
    from mien.int8 import TYPICAL_GAIN, saved_share

    worked = job.stage_seconds.model_dump(exclude={"write"})
    share = worked["classify"] / max(sum(worked.values()), 1e-9)
    if job.options.precision != "fp32" or saved_share(share) < WORTH_SAYING or not job.counts.faces:
        return None
    try:
        workers, card = client.workers(), client.model(f"{job.model.name}@{job.model.revision}")
    except MienError:  # it was removed, or nothing runs any more: the hint is not worth an error
        return None
    if any(worker.device != "cpu" for worker in workers) or card.int8_cost is None:
        return None
    if not any("int8" in worker.precisions for worker in workers):
        return None
    return (
        f"--precision int8 would take about {100 * saved_share(share):.0f}% less time here (classifying is "
        f"{100 * share:.0f}% of it, and up to {TYPICAL_GAIN:g} times as fast in int8); it {card.int8_cost}."
    )


def exit_code(job: JobStatus) -> int:
    """The exit code that this end of a job deserves."""
    if job.status in ("cancelled", "failed", "cancelling", "deleting"):
        return NOT_DONE
    return SOME_FAILED if job.counts.failed else 0


def _duration(job: JobStatus) -> str:
    ended = job.completed_at or job.cancelled_at or job.failed_at
    return f" in {seconds((ended - job.created_at).total_seconds())}" if ended else ""


def _folder(folder: Path, settings: Settings) -> str:
    """The absolute path to send. On this machine it is checked before anything is started.

    Raises:
        SourceError: it is missing, no folder, or cannot be read.
    """
    path = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - keeps links as the user wrote them
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise SourceError(
            f"The name of {folder} is not valid UTF-8 and cannot be sent. Name it through a link: "
            "ln -s FOLDER /tmp/photos; mien classify /tmp/photos.",
            code="source_name",
        ) from None
    if settings.url:
        return str(path)
    if not path.exists():
        raise SourceError(f"There is no folder {folder}.", code="source_missing")
    if not path.is_dir():
        raise SourceError(f"{folder} is not a folder; name the folder that holds the photographs.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise SourceError(f"You may not read the folder {folder}.", code="source_unreadable")
    return str(path)


def metadata_of(pairs: Sequence[str]) -> dict[str, str]:
    """What ``--metadata`` gives."""
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.UsageError(f"--metadata {pair!r} is not KEY=VALUE.")
        found[key] = value
    return found


def _say_how_to_come_back(job: JobStatus, outputs: Sequence[Output]) -> None:
    files = " ".join(f"{o.option} {o.path}" for o in outputs if not o.is_stdout) or "--csv results.csv"
    say(
        f"\nJob {job.id} is kept, with {job.done:,} of {count(job.counts.total, 'image')} done so far.\n"
        f"  mien status {job.id} --wait         goes on with it\n"
        f"  mien results {job.id} {files}    writes what there is\n"
        f"  mien cancel {job.id}                ends it"
    )


class ToldToStop(KeyboardInterrupt):
    """SIGTERM arrived: the same as Ctrl-C, with another exit code."""


@contextmanager
def stop_on_term() -> Iterator[None]:
    """Within the block SIGTERM is an exception, so that what was started is also stopped."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise ToldToStop

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


commands = [classify]
