"""The page docs/cli.md out of click's commands: ``python -m cli.reference > docs/cli.md``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from cli.main import EPILOG, loaded

HEAD = """# The command line, command by command

Generated from the commands by `python -m cli.reference > docs/cli.md`; a test fails when it is out of date. What they
are for, with examples, is in [user.md](user.md), [operator.md](operator.md), [operate.md](operate.md) and
[models.md](models.md). Every command and group takes `-h` or `--help`; `mien --version` prints the version.
"""


def commands(group: click.Group, path: tuple[str, ...] = ("mien",)) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group by what is typed for it, in the order of ``--help``."""
    for name, command in group.commands.items():
        typed = (*path, name)
        yield " ".join(typed), command
        if isinstance(command, click.Group):
            yield from commands(command, typed)


def reference() -> str:
    """All commands as a page of Markdown."""
    lines = [HEAD]
    for typed, command in commands(loaded()):
        lines += _section(typed, command)
    return "\n".join([*lines, EPILOG]) + "\n"


def names(parameter: click.Parameter) -> list[str]:
    """How an option is written, long and short, also switched off; or the one name of an argument."""
    if isinstance(parameter, click.Argument):
        return [_argument(parameter)]
    return [*parameter.opts, *parameter.secondary_opts]


def _section(typed: str, command: click.Command) -> Iterator[str]:
    arguments = [_argument(one) for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option)]
    usage = [typed, *(["[OPTIONS]"] if options else []), *arguments]
    if isinstance(command, click.Group):
        usage.append("[COMMAND]" if command.invoke_without_command else "COMMAND")
    yield f"{'#' * (len(typed.split()))} `{' '.join(usage)}`\n"
    yield f"{_plain(command.help or '')}\n"
    if options:
        yield "| option | meaning |\n| --- | --- |"
        yield from (_row(option) for option in options)
        yield ""


def _row(option: click.Option) -> str:
    written = ", ".join(f"`{name}`" for name in names(option))
    value = "" if option.is_flag else f" {_value(option)}"
    notes = []
    if option.required:
        notes.append("Required.")
    if option.multiple and "repeat" not in (option.help or ""):
        notes.append("May be repeated.")
    default = option.default
    if isinstance(default, bool):
        if option.secondary_opts:
            notes.append(f"Default: `{(option.opts if default else option.secondary_opts)[0]}`.")
    elif option.show_default and default is not None:
        notes.append(f"Default: `{default}`.")
    return f"| {written}{value} | {_cell(' '.join([option.help or '', *notes]))} |"


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in option.type.choices)
    kind = {"integer range": "integer", "float range": "number", "float": "number", "file": "path"}
    return f"`{option.metavar or kind.get(option.type.name, option.type.name).upper()}`"


def _argument(argument: click.Argument) -> str:
    if argument.metavar:
        return argument.metavar
    name = (argument.name or "").upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _plain(help_text: str) -> str:
    """A command's help in Markdown: what click prints line by line (after ``\\b``) becomes a block."""
    paragraphs = inspect.cleandoc(help_text).split("\n\n")
    return "\n\n".join(
        "```text\n" + part.removeprefix("\b\n") + "\n```" if part.startswith("\b") else " ".join(part.split())
        for part in paragraphs
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
