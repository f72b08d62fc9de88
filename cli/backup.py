"""``mien backup`` and ``mien restore``: of the whole Mien, into one folder or file."""

from __future__ import annotations

from pathlib import Path

import click

from cli.output import say, show_json

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("target", type=PATH, metavar="FOLDER|FILE.tar")
@click.option("--json", "as_json", is_flag=True, help="What was backed up, as a JSON object.")
def backup(target: Path, as_json: bool) -> None:
    """Copy ledger, uploads and installed models into a new folder, or a file whose name ends with .tar.

    Jobs go on meanwhile: the copy is of one moment. PostgreSQL needs its pg_dump on the PATH. Folders of photographs
    that jobs name are not in it.
    """
    from cli.ledger import open_ledger
    from mien.backup import back_up
    from mien.models import ModelStore
    from mien.resources import resource
    from mien.settings import load_settings

    settings = load_settings()
    store = ModelStore(settings.models, resource("models/default"))
    with open_ledger(settings) as db:
        made = back_up(db, settings, store, Path.cwd() / target)
    if as_json:
        show_json(made.model_dump(mode="json"))
        return
    models = len([place for place in made.models.values() if place])
    say(
        f"Backed up to {target}: the ledger ({made.database}), {made.uploads:,} uploads "
        f"({made.upload_bytes:,} bytes), {models} models beside the shipped one."
    )


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True), metavar="FOLDER|FILE.tar")
@click.option(
    "--erasures",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The erasure log of the Mien that was backed up, as it stands now; by default the one that is here.",
)
@click.option("--json", "as_json", is_flag=True, help="What was restored, as a JSON object.")
def restore(source: Path, erasures: Path | None, as_json: bool) -> None:
    """Bring a backup back into an empty ledger and data folder (MIEN_DATA_DIR, MIEN_DATABASE_URL), then start Mien.

    Unfinished jobs go on where the backup stands. What was deleted on request since is deleted again.
    """
    from cli.embedded.state import RunFiles, take_lock
    from mien.backup import restore as bring_back
    from mien.errors import ConflictError
    from mien.models import ModelStore
    from mien.resources import resource
    from mien.settings import load_settings

    settings = load_settings()
    files = RunFiles(settings.data_dir)
    files.make()
    lock = take_lock(files.system_lock)
    if lock is None:
        raise ConflictError(
            f"A Mien runs for the data folder {settings.data_dir}; stop it first.", code="already_running"
        )
    with lock:
        done = bring_back(settings, ModelStore(settings.models, resource("models/default")), source, erasures=erasures)
    if as_json:
        facts = {"unfinished": done.unfinished, "erased_again": done.erased_again}
        show_json({**facts, "backup": done.manifest.model_dump(mode="json")})
        return
    say(
        f"Restored the backup of {done.manifest.made_at:%Y-%m-%d %H:%M:%S} UTC. Start Mien, and {done.unfinished} "
        f"unfinished jobs go on; {done.erased_again} deletions made since are carried out again."
    )


commands = [backup, restore]
