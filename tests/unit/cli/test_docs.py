"""What the documents tell people to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cli import main
from cli.embedded import commands
from tests.support.machine import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(?:sh|bash|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def typed(page: Path) -> list[str]:
    """The lines of a page's code blocks, without comments and prompts."""
    return [line.strip() for block in FENCED.findall(page.read_text()) for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_mien_command_in_a_page_exists_with_its_options(page: Path) -> None:
    main.run(["--version"])
    for line in typed(page):
        if not line.startswith("mien "):
            continue
        words = shlex.split(re.split(r" \|\|| \| ", line)[0], comments=True)[1:]
        command: click.Command = main.mien
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page.name}: {line}"
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help", "--version"}, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_in_a_page_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    used = {line.split()[1] for line in typed(page) if line.startswith("make ")}
    assert used <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_operators_page_has_the_commands_of_the_processes() -> None:
    text = (ROOT / "docs" / "operator.md").read_text()
    for command in (commands.worker("cpu", 2), commands.control()):
        assert " ".join(command) in text
    assert shlex.split(next(line for line in text.splitlines() if line.startswith("gunicorn "))) == commands.web()


def test_the_exit_codes_are_the_documented_ones() -> None:
    from cli import classify

    table = re.findall(r"^\| (\d+)(?:, (\d+))? \|", (ROOT / "docs" / "user.md").read_text(), flags=re.MULTILINE)
    documented = {int(code) for row in table for code in row if code}
    assert documented == {0, 1, 2, classify.SOME_FAILED, classify.NOT_DONE, classify.CTRL_C, classify.TOLD_TO_STOP}
