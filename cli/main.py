"""The command ``mien``: its groups, and how every error becomes one line and an exit code.

Exit codes: 0 done; 1 an error; 2 wrong usage; 3 done, but some images could not be read; 4 the job was cancelled or
failed; 130 Ctrl-C; 143 told to stop.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from mien import __version__
from mien.errors import MienError

MODULES = (
    *("cli.classify", "cli.run", "cli.jobs", "cli.compare", "cli.upload", "cli.review"),
    *("cli.doctor", "cli.operate", "cli.workers", "cli.webhooks", "cli.keys", "cli.audit", "cli.backup"),
    "cli.model_commands",
)
"""Each has a list ``commands``. Their own imports are light; what is heavy is imported inside the commands."""
CTRL_C = 130
EPILOG = (
    "Exit codes: 0 done; 1 an error; 2 wrong usage; 3 done, but some images could not be read; "
    "4 the job was cancelled or failed; 130 stopped by Ctrl-C."
)


class _InOrder(click.Group):
    """Lists its commands in the order in which they were added: what a newcomer needs first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Called by click."""
        return list(self.commands)


@click.group(
    cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG
)
@click.version_option(__version__, prog_name="mien")
def mien() -> None:
    """Mien reads the expression on every face in a folder of photographs.

    \b
    mien classify PHOTOS --csv results.csv    one row per face; nothing needs to run already
    mien up PHOTOS                            pages and API on http://127.0.0.1:8616 until Ctrl-C
    mien doctor                               what works here, what is missing, and the mend
    """


def main() -> NoReturn:
    """The entry point."""
    sys.exit(run())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold what the terminal cannot show
    try:
        loaded()
        given = None if arguments is None else list(arguments)
        code = mien.main(args=given, prog_name="mien", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return _explained(error)
    return code if isinstance(code, int) else 0


def _explained(error: BaseException) -> int:
    """Say in one line what went wrong; gives the exit code."""
    code = 1
    match error:
        case MienError():
            _say(error.detail)
        case click.ClickException():
            error.show()
            code = error.exit_code
        case click.Abort() | KeyboardInterrupt():
            _say("stopped")
            code = CTRL_C
        case BrokenPipeError():
            # whoever read our output has left (`mien results ... | head`): no error, and no reason to complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        case OSError(filename=str() | Path() as file, errno=int() as number):
            _say(f"{file}: {os.strerror(number)}")
        case _:
            _say(f"this should not have happened: {type(error).__name__}: {error}. {_note_traceback()}")
    return code


def loaded() -> click.Group:
    """``mien`` with every command in it."""
    for name in MODULES:
        for command in importlib.import_module(name).commands:
            mien.add_command(command)
    return mien


def _note_traceback() -> str:
    from mien.settings import load_settings

    try:
        log: Path = load_settings().data_dir / "logs" / "cli.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(f"mien {__version__} {' '.join(sys.argv[1:])}\n{traceback.format_exc()}\n")
    except (OSError, MienError):
        return "Please report it."
    return f"Please report it, with the end of {log}."


def _say(sentence: str) -> None:
    click.echo(f"mien: {sentence}", err=True)


if __name__ == "__main__":
    main()
