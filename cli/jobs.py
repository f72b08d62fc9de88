"""Commands on jobs: ``jobs``, ``status``, ``results``, ``cancel``, ``retry``, ``delete``, ``cite``. All speak HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from cli.classify import exit_code, follow, metadata_of, output_options, outputs_of, show_summary, write_outputs
from cli.output import count, say, seconds, show_json, show_table
from mien.errors import UnavailableError

if TYPE_CHECKING:
    from mien.client import Client
    from mien.wire import JobStatus, Receipt

SETTLE_S = 120.0
POLL_S = 0.3
STATUSES = ("draft", "queued", "expanding", "running", "cancelling", "completed", "cancelled", "failed", "deleting")


@click.command()
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs in this state.")
@click.option("--model", help="Only jobs of this model: NAME or NAME@REVISION.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Only jobs with this metadata. May be repeated.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def jobs(status: str | None, model: str | None, metadata: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    from cli.system import readable_mien
    from mien.client import Among
    from mien.settings import load_settings

    wanted = Among(status=status, model=model, metadata=metadata_of(metadata))  # type: ignore[arg-type]
    with readable_mien(load_settings()) as client:
        found = list(client.jobs(among=wanted, limit=limit))
    if as_json:
        show_json([job.model_dump(mode="json") for job in found])
        return
    if not found:
        chosen = status or model or metadata
        say("There are no such jobs." if chosen else "There are no jobs yet; `mien classify FOLDER` makes one.")
        return
    rows = [
        (
            job.id,
            job.status,
            f"{job.done:,}/{job.counts.total:,}",
            f"{job.counts.faces:,}",
            f"{job.counts.failed:,}",
            f"{job.created_at.astimezone():%Y-%m-%d %H:%M}",
            job.source.path or job.source.type,
        )
        for job in found
    ]
    show_table(("job", "status", "images", "faces", "failed", "made", "source"), rows, right=(2, 3, 4))


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Go on with the job and watch it until it has ended.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, as the API gives it.")
def status(job_id: str, wait: bool, as_json: bool) -> None:
    """Show a job. With --wait the exit code tells its end: 0 done, 3 some images failed, 4 cancelled or failed."""
    from cli.system import readable_mien, working_mien
    from mien.settings import load_settings

    settings = load_settings()
    with (working_mien if wait else readable_mien)(settings) as client:
        job = client.job(job_id)
        if wait:
            job = follow(client, job, settings)
        if as_json:
            show_json(job.model_dump(mode="json"))
        else:
            _show(job)
    raise click.exceptions.Exit(exit_code(job) if wait else 0)


@click.command()
@click.argument("job_id", metavar="ID")
@output_options
@click.option("--summary", is_flag=True, help="Print a table of what was found, too.")
def results(
    job_id: str,
    *,
    csv: str | None,
    jsonl: str | None,
    images_csv: str | None,
    errors_csv: str | None,
    parquet: str | None,
    summary: bool,
) -> None:
    """Write a job's results, also while it runs. Without an option: the CSV, to standard output."""
    from cli.system import readable_mien
    from mien.settings import load_settings

    outputs = outputs_of(csv, jsonl, images_csv, errors_csv, parquet)
    if not outputs and not summary:
        outputs = outputs_of("-", None, None, None)
    with readable_mien(load_settings()) as client:
        job = client.job(job_id)
        write_outputs(client, job, outputs)
        if summary:
            show_summary(client, job, outputs)
    if not job.complete:
        say(f"Incomplete: job {job.id} is {job.status}, {job.done:,} of {count(job.counts.total, 'image')} are done.")


@click.command()
@click.argument("job_id", metavar="ID")
def cancel(job_id: str) -> None:
    """End a job early. What is classified stays; the other images become `cancelled`."""
    _change(job_id, lambda client: client.cancel(job_id), lambda job: job.is_final)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Watch it until it has ended.")
def retry(job_id: str, wait: bool) -> None:
    """Try the failed images of a job again, and only those."""
    from cli.system import readable_mien, working_mien
    from mien.settings import load_settings

    settings = load_settings()
    with (working_mien if wait else readable_mien)(settings) as client:
        job = client.retry(job_id)
        if wait:
            job = follow(client, job, settings)
        _show(job)
    if not wait:
        say(f"`mien status {job_id} --wait` goes on with it.")
    raise click.exceptions.Exit(exit_code(job) if wait else 0)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--model", metavar="NAME", help="Another model: a name, or name@revision.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16", "int8"]), help="Another precision.")
@click.option("--faces", type=click.Choice(["detect", "whole"]), help="Find faces, or take each image as it is.")
@click.option("--detect-size", type=int, metavar="PIXELS", help="Another longer side at which faces are looked for.")
@click.option("--min-face", type=int, metavar="PIXELS", help="Another smallest face that counts.")
@click.option("--wait", is_flag=True, help="Watch it until it has ended.")
def rerun(job_id: str, *, model: str | None, wait: bool, **options: object) -> None:
    """Run a job again as a new one over the same images. What is not named is as it was."""
    from cli.system import readable_mien, working_mien
    from mien.settings import load_settings

    settings = load_settings()
    different = {name: value for name, value in options.items() if value is not None}
    with (working_mien if wait else readable_mien)(settings) as client:
        job = client.rerun(job_id, model=model, options=different or None)
        if wait:
            job = follow(client, job, settings)
        _show(job)
    if not wait:
        say(f"`mien status {job.id} --wait` goes on with it.")
    raise click.exceptions.Exit(exit_code(job) if wait else 0)


@click.command()
@click.argument("job_ids", metavar="[ID...]", nargs=-1)
@click.option("--image", "images", multiple=True, metavar="FILE", help="Only this image of the job; may be repeated.")
@click.option("--sha256", metavar="HEX", help="Every image with this SHA-256, in all of your jobs.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(job_ids: tuple[str, ...], images: tuple[str, ...], *, sha256: str | None, yes: bool) -> None:
    """Delete jobs, single images of one, or a content: results, faces, uploads, cached answers.

    Photographs in folders are not touched.
    """
    from cli.system import working_mien
    from mien.settings import load_settings

    if bool(job_ids) == bool(sha256) or (images and len(job_ids) != 1):
        raise click.UsageError("Name jobs, or one job and its --image FILE, or --sha256 HEX.")
    if sha256:
        what = f"every image with SHA-256 {sha256[:12]}... in all jobs"
    elif images:
        what = f"{count(len(images), 'image')} of job {job_ids[0]}"
    else:
        what = f"{count(len(job_ids), 'job')} with all results"
    if not yes:
        click.confirm(f"Delete {what}?", abort=True, err=True)
    with working_mien(load_settings()) as client:
        if sha256:
            receipts = {what: client.delete_content(sha256)}
        elif images:
            receipts = {what: client.delete_images(job_ids[0], *images)}
        else:
            receipts = {f"Job {job_id}": client.delete(job_id) for job_id in job_ids}
        for name, receipt in receipts.items():
            _say_deleted(client, name, receipt)


def _say_deleted(client: Client, name: str, receipt: Receipt) -> None:
    _await(
        lambda: client.receipt(receipt.id).finished_at is not None,
        f"{name}: it is being deleted, which takes longer (receipt {receipt.id}).",
    )
    gone = client.receipt(receipt.id).deleted
    say(f"{name}: deleted, {count(gone.images, 'image')}, {count(gone.faces, 'face')} (receipt {receipt.id}).")


@click.command()
@click.argument("job_id", metavar="ID")
def cite(job_id: str) -> None:
    """Print a methods sentence and a BibTeX entry for a job's results."""
    from cli.system import readable_mien
    from mien.settings import load_settings

    with readable_mien(load_settings()) as client:
        citation = client.cite(job_id)
    click.echo(f"{citation.methods}\n\n{citation.bibtex}")


def _change(job_id: str, ask: Callable[[Client], JobStatus], is_settled: Callable[[JobStatus], bool]) -> None:
    """Ask for a change and wait until control has carried it out."""
    from cli.system import working_mien
    from mien.settings import load_settings

    with working_mien(load_settings()) as client:
        ask(client)
        _await(
            lambda: is_settled(client.job(job_id)),
            f"Job {job_id} changes as soon as Mien gets to it; `mien status {job_id}` tells.",
        )
        _show(client.job(job_id))


def _await(is_done: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not is_done():
        if time.monotonic() > deadline:
            raise UnavailableError(otherwise)
        time.sleep(POLL_S)


def _times(job: JobStatus) -> list[tuple[str, object]]:
    """Seconds per stage and image, as rows."""
    images = job.counts.ok + job.counts.no_face + job.counts.failed
    worked, waited = job.stage_seconds.model_dump(), job.stage_waits.model_dump()
    if not images or not any(worked.values()):
        return []
    cells = [
        f"{stage} {1000 * worked[stage] / images:.1f} + {1000 * waited[stage] / images:.1f}" for stage in worked
    ]  # fmt: skip
    return [("ms an image", ", ".join(cells)), ("", "(worked + waited, summed over engines)")]


def _show(job: JobStatus) -> None:
    counts = job.counts
    rows: list[tuple[str, object]] = [
        ("job", job.id),
        ("status", job.status if job.complete or not job.is_final else f"{job.status}, incomplete"),
        ("source", job.source.path or job.source.type),
        ("images", f"{job.done:,} of {counts.total:,} done"),
        ("", f"{counts.ok:,} with faces, {counts.no_face:,} without"),
        ("", f"{counts.failed:,} failed, {counts.cancelled:,} cancelled"),
        ("faces", f"{counts.faces:,}"),
        ("model", f"{job.model.name}, revision {job.model.revision[:12]}, {job.options.precision}"),
        ("faces are", "found" if job.options.faces == "detect" else "whole images"),
        ("made", f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"),
    ]
    if counts.skipped:
        rows.insert(6, ("passed over", count(counts.skipped, "other file")))
    if job.images_per_s:
        rows.append(("rate", f"{job.images_per_s:.1f} images/s"))
    if job.eta_s is not None and not job.is_final:
        rows.append(("left", seconds(job.eta_s)))
    rows.extend(_times(job))
    for name, reason in (("slowest", job.bottleneck), ("failed", job.error), ("note", job.notice)):
        if reason is not None:
            rows.append((name, reason.detail))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name.ljust(width)}  {value}")


commands = [jobs, status, results, cancel, retry, rerun, delete, cite]
