"""``mien up``: everything in one terminal, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType

import click

from cli.output import say
from mien.errors import SettingsError, SourceError


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[FOLDER...]")
def up(folders: tuple[Path, ...]) -> None:
    """Run Mien with its pages and API until Ctrl-C; FOLDERs may be classified from them.

    Brings the ledger up to date first, goes on with jobs that are not done, starts a part again that dies, and on
    Ctrl-C hands unfinished work back (a second Ctrl-C stops at once). MIEN_PORT, MIEN_HOST and MIEN_DATA_DIR place it.
    """
    from cli.embedded.supervisor import Supervisor
    from mien.settings import load_settings

    settings = load_settings()
    roots = [_root(folder) for folder in folders]
    if not settings.is_loopback and settings.embedded_broker and not settings.database_url:
        say("note: Mien listens beyond this machine; whoever calls it needs an API key (`mien keys create NAME`).")
    told = _Told()
    supervisor = Supervisor(settings, roots=roots, report=say)
    say("Starting Mien ...")
    supervisor.start("up", told.is_told)
    try:
        where = ", ".join(str(root) for root in supervisor.roots) or "none yet: mien up FOLDER, or MIEN_ROOTS"
        say(
            f"Mien runs at {supervisor.url}\n"
            f"  folders  {where}\n"
            f"  data     {settings.data_dir} (logs in {supervisor.files.logs})\n"
            "Ctrl-C stops it."
        )
        supervisor.watch(told.is_told)
    finally:
        say("Stopping: unfinished work is handed back (Ctrl-C again stops at once) ...")
        supervisor.drain(told.is_hurried)
    say("Stopped.")


def _root(folder: Path) -> Path:
    path = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - keeps links as the user wrote them
    if not path.is_dir():
        raise SourceError(f"There is no folder {folder}." if not path.exists() else f"{folder} is not a folder.")
    if os.pathsep in str(path):
        raise SettingsError(f"The path {path} holds a {os.pathsep!r}, which separates roots; rename it or use a link.")
    return path


class _Told:
    """SIGINT, SIGTERM and SIGHUP ask for the end; the second asks for haste."""

    def __init__(self) -> None:
        self._told, self._hurried = threading.Event(), threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._tell)

    def _tell(self, _signal: int, _frame: FrameType | None) -> None:
        (self._hurried if self._told.is_set() else self._told).set()

    def is_told(self) -> bool:
        """Whether the end is asked for."""
        return self._told.is_set()

    def is_hurried(self) -> bool:
        """Whether it is asked for at once."""
        return self._hurried.is_set()


commands = [up]
