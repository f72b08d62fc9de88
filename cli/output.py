"""What the commands print and write: tables, sentences, and files that appear only when they are whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from mien.errors import UnprocessableError


def say(sentence: str = "") -> None:
    """A sentence for the person at the terminal; never part of the output that a script reads."""
    click.echo(sentence, err=True)


def show_json(value: Any) -> None:
    """A value for scripts."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def show_table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = (), err: bool = False
) -> None:
    """A plain table with aligned columns; ``right`` numbers the columns that are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    lines = [list(headers), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    for line in lines:
        aligned = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        click.echo("  ".join(aligned).rstrip(), err=err)


def check_target(path: Path, option: str) -> None:
    """Refuse early what could not be written late.

    Raises:
        UnprocessableError: ``bad_output``.
    """
    folder = path.parent if str(path.parent) else Path()
    if path.is_dir():
        problem = "is a folder; name a file"
    elif not folder.is_dir():
        problem = f"cannot be written: there is no folder {folder}"
    elif not os.access(folder, os.W_OK):
        problem = f"cannot be written: {folder} does not allow it"
    else:
        return
    raise UnprocessableError(f"{option} {path} {problem}.", code="bad_output", field=option)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when the block has ended without an error; until then the old one stays."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.chmod(_mode(path))
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _mode(path: Path) -> int:
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def seconds(value: float | None) -> str:
    """A length of time for people: ``41 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value is None:
        return "?"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 image``, ``2 images``, ``1,000,000 images``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
