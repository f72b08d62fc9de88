"""Every command of `mien`, with every option and argument, is in docs/cli.md; exit codes are in docs/user.md."""

from __future__ import annotations

import re

import click
import pytest

from cli import classify, main
from cli.reference import commands, names, reference
from tests.support.documents import first_cells, section, text_of

ALL = dict(commands(main.loaded()))


def test_the_page_is_what_the_commands_say() -> None:
    assert text_of("docs/cli.md") == reference(), "run: python -m cli.reference > docs/cli.md"


@pytest.mark.parametrize("typed", ALL)
def test_a_command_is_there_with_all_its_options_and_says_what_they_do(typed: str) -> None:
    command = ALL[typed]
    heading = next((line for line in text_of("docs/cli.md").splitlines() if re.match(rf"#+ `{typed}[ `]", line)), "")
    assert heading, f"docs/cli.md has no {typed}"
    assert command.help, typed
    below = first_cells(section("docs/cli.md", heading))
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert names(parameter)[0] in heading, f"{typed}: {parameter.name}"
        else:
            assert set(names(parameter)) <= set(below), f"{typed}: {names(parameter)}"
            assert parameter.help, f"{typed}: {names(parameter)}"  # type: ignore[attr-defined]


def test_the_exit_codes_are_the_documented_ones() -> None:
    cells = re.findall(r"^\| (\d+)(?:, (\d+))? \|", section("docs/user.md", "## Exit codes"), flags=re.MULTILINE)
    documented = {int(code) for row in cells for code in row if code}
    assert documented == {0, 1, 2, classify.SOME_FAILED, classify.NOT_DONE, classify.CTRL_C, classify.TOLD_TO_STOP}
