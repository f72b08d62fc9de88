"""README and docs/ as tests read them: pages, their tables, their command blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.machine import ROOT

GENERATED = ("docs/api_reference.md", "docs/cli.md")
"""Printed by the code itself; tests compare them with what it prints."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BY_HAND = [page for page in PAGES if page.relative_to(ROOT).as_posix() not in GENERATED]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
COMMAND_LANGUAGES = ("sh", "bash", "console", "python")
OTHER_LANGUAGES = ("json", "toml", "mermaid", "text", "")
"""Blocks that nobody types: data, configuration, pictures."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page (``docs/user.md``), its number on the page (from 1), its language and its text."""

    page: str
    number: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its command lines: comments left out, lines that end in ``\\`` or an open quote joined."""
        found: list[str] = []
        open_line = ""
        for line in self.text.splitlines():
            open_line = f"{open_line}\n{line}" if open_line else line
            if open_line.endswith("\\") or _is_open(open_line):
                continue
            if open_line.strip() and not open_line.lstrip().startswith("#"):
                found.append(open_line.strip())
            open_line = ""
        assert not open_line, f"{self}: a quote is not closed"
        return found

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def text_of(page: str) -> str:
    """A page by its path from the root of the repository."""
    return (ROOT / page).read_text()


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks of a page."""
    found = enumerate(_FENCED.findall(text_of(page)), 1)
    return [Block(page, number, language, text) for number, (language, text) in found]


def command_blocks() -> list[Block]:
    """The blocks of all pages written by hand that hold something to type."""
    pages = [page.relative_to(ROOT).as_posix() for page in BY_HAND]
    return [block for page in pages for block in blocks_of(page) if block.language in COMMAND_LANGUAGES]


def section(page: str, heading: str) -> str:
    """What stands below a heading, down to the next one of its level or above."""
    text, level = text_of(page), heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no heading {heading!r}"
    return found.group(1)


def rows(text: str) -> list[list[str]]:
    """The rows of the Markdown tables in a text, without their heads: cells as they stand."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    heads = {number - 1 for number, line in enumerate(lines) if line.startswith("| ---")}
    heads |= {number + 1 for number in heads}
    return [
        [cell.strip() for cell in line.strip("| ").replace("\\|", "¦").split(" | ")]
        for number, line in enumerate(lines)
        if number not in heads
    ]


def named(cell: str) -> list[str]:
    """What stands in backticks in a cell."""
    return _CODE.findall(cell)


def first_cells(text: str) -> list[str]:
    """What stands in backticks in the first column of the tables of a text."""
    return [name for row in rows(text) for name in named(row[0])]


def _is_open(line: str) -> bool:
    """Whether a quote of a shell command is not closed yet; what follows ``#`` is a comment."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote and (quote == "'" or line[place - 1] != "\\") else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1].isspace()):
            return line.endswith("\\")
    return bool(quote)


def path_of(page: Path) -> str:
    """A page's path from the root of the repository."""
    return page.relative_to(ROOT).as_posix()
