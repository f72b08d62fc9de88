"""``mien upload``: a folder of this machine, sent to a Mien elsewhere and classified there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from cli.classify import (
    CTRL_C,
    SOME_FAILED,
    TOLD_TO_STOP,
    ToldToStop,
    exit_code,
    follow,
    job_options,
    metadata_of,
    output_options,
    outputs_of,
    show_summary,
    stop_on_term,
    write_outputs,
)
from cli.output import count, say
from mien.errors import ConflictError, MienError, SourceError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from mien.client import Client
    from mien.uploading import Choice, Progress
    from mien.wire import JobStatus

SHOWN_REFUSED = 10
LINE_EVERY_S = 10.0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--url", metavar="URL", help="Address of the Mien; else MIEN_URL, else the one on this machine.")
@click.option("--key", metavar="KEY", help="API key; better in MIEN_API_KEY, where `ps` does not show it.")
@click.option("--parallel", type=click.IntRange(1, 32), default=4, show_default=True, help="Requests at once.")
@click.option("--resume", metavar="ID", help="Go on with an upload that was interrupted: send only what is missing.")
@click.option("--wait", is_flag=True, help="Watch the job until it has ended; any output option does so too.")
@output_options
@job_options
def upload(
    folder: Path,
    *,
    url: str | None,
    key: str | None,
    parallel: int,
    resume: str | None,
    wait: bool,
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
    """Send the photographs of FOLDER to a Mien elsewhere, and have them classified there.

    Names are kept, relative to FOLDER. An interrupted upload is kept for a day: `--resume ID` sends what is missing.

    Exit code 3 says that some files could not be sent, or some images not be read, 4 that the job was cancelled or
    failed.
    """
    from cli.system import working_mien
    from mien.settings import load_settings
    from mien.uploading import Choice, measure

    given = {"url": url, "api_key": key}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    choice = Choice(_root(folder), recursive, include, exclude)
    outputs = outputs_of(csv, jsonl, images_csv, errors_csv, parquet)
    found = measure(choice)
    if not found[0]:
        raise SourceError(f"There is no image in {folder}. Images are told by their ending; --include changes that.")
    model = options.pop("model")
    with stop_on_term(), working_mien(settings) as client:
        if resume:
            job = client.job(resume)
        else:
            job = client.create_draft(model=model, options=options, metadata=metadata_of(metadata))
        refused = _send(client, job, choice, found, parallel=parallel, folder=folder)
        job = client.submit(job.id)
        if not (wait or outputs):
            say(f"Job {job.id} is submitted. `mien status {job.id} --wait` follows it.")
            raise click.exceptions.Exit(SOME_FAILED if refused else 0)
        job = follow(client, job, settings, outputs)
        write_outputs(client, job, outputs)
        show_summary(client, job, outputs)
    code = exit_code(job)
    raise click.exceptions.Exit(code or (SOME_FAILED if refused else 0))


def _root(folder: Path) -> bytes:
    path = folder.expanduser()
    if not path.is_dir():
        raise SourceError(f"There is no folder {folder}.", code="source_missing")
    if not os.access(path, os.R_OK | os.X_OK):
        raise SourceError(f"You may not read the folder {folder}.", code="source_unreadable")
    return os.path.realpath(os.fsencode(path))


def _send(
    client: Client, job: JobStatus, choice: Choice, found: tuple[int, int], *, parallel: int, folder: Path
) -> int:
    """Send what is missing of the files ``found`` (how many, how many bytes); gives how many were refused.

    Raises:
        Exit: Ctrl-C, or told to stop; after saying how to go on.
    """
    from mien.uploading import FolderUpload

    if job.status != "draft":
        raise ConflictError(f"Job {job.id} is {job.status}; only an upload that is not submitted yet can go on.")
    files, size = found
    say(f"Job {job.id}: {count(files, 'file')}, {_bytes(size)}")
    arrived = {item.file: (item.bytes, item.sha256) for item in client.uploads(job.id)} if job.source.files else {}
    how = f"`mien upload {folder} --resume {job.id}` goes on where it stopped."
    try:
        with UploadProgress(files, size) as shown:
            done = FolderUpload(client.twin, job.id, choice, parallel, shown.show).run(arrived)
    except KeyboardInterrupt as stop:
        say(f"\nStopped. {how}")
        raise click.exceptions.Exit(TOLD_TO_STOP if isinstance(stop, ToldToStop) else CTRL_C) from None
    except MienError:
        say(how)
        raise
    _tell(done)
    return len(done.refused)


def _tell(done: Progress) -> None:
    there = f" ({done.there_already:,} were there already)" if done.there_already else ""
    say(f"{count(done.files, 'file')} arrived{there}, {_bytes(done.size)}.")
    for name, reason in done.refused[:SHOWN_REFUSED]:
        say(f"not sent: {name}: {reason}")
    if len(done.refused) > SHOWN_REFUSED:
        say(f"not sent: {count(len(done.refused) - SHOWN_REFUSED, 'more file')}")


def _bytes(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


class UploadProgress:
    """A bar on a terminal, now and then a plain line elsewhere. Its ``show`` is called from several threads in turn."""

    def __init__(self, files: int, size: int) -> None:
        self._files, self._size = files, size
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._shown_at = time.monotonic()

    def __enter__(self) -> UploadProgress:
        if sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task("sending", total=self._size or None, files="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=progress.size, files=f"{progress.files:,} of {count(self._files, 'file')}"
            )
        elif time.monotonic() - self._shown_at > LINE_EVERY_S:
            self._shown_at = time.monotonic()
            say(f"sending: {progress.files:,} of {count(self._files, 'file')}, {_bytes(progress.size)}")


def _make_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[files]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
    )


commands = [upload]
