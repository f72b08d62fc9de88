"""Every command in README and docs/ exists, with its options. (end_to_end/test_documents.py runs them.)"""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from typing import Any

import click
import pytest
import yaml

from cli import main
from cli.embedded import commands
from tests.support.documents import (
    BY_HAND,
    COMMAND_LANGUAGES,
    OTHER_LANGUAGES,
    Block,
    blocks_of,
    command_blocks,
    path_of,
)
from tests.support.machine import ROOT
from tests.support.shell import simple_commands
from tests.support.typed import READ_ONLY

BLOCKS = command_blocks()
LINES = [(block, line) for block in BLOCKS if block.language != "python" for line in block.commands]
PLAIN = {"curl", "export", "journalctl", "jq", "openssl", "python3", "sed", "tr", "["}
"""Programs of everyone's, whose options are not ours to check."""
MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
RUN_BY_INSTALL = {"TORCH", "PYTHON"}
"""Variables of make that requirements/install.sh reads."""


@pytest.fixture
def any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and files of examples need not be there."""
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, _parameter, _context: value)


@pytest.mark.parametrize(("block", "line"), LINES, ids=[f"{block}: {line[:40]}" for block, line in LINES])
def test_a_command_exists_with_its_options(block: Block, line: str, any_path: None) -> None:
    found = simple_commands(line)
    assert found or re.fullmatch(r"\w+=.*", line, re.DOTALL), f"{block}: nothing is run by {line}"
    for words in found:
        check(words)


def check(words: list[str]) -> None:
    """That a command can be typed as it is.

    Raises:
        AssertionError, click.UsageError: it cannot.
    """
    match words:
        case ["mien", *arguments]:
            parse(main.loaded(), arguments)
        case ["make", target, *variables]:
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
            names = {one.partition("=")[0] for one in variables}
            assert all(re.search(rf"\b{name}\b", MAKEFILE) for name in names - RUN_BY_INSTALL), names
        case ["python", "-m", module, *arguments]:
            found = importlib.util.find_spec(module)
            assert found and found.origin, module
            text = ast.unparse(ast.parse((ROOT / found.origin).read_text()))
            assert all(f"'{one}'" in text for one in arguments if one.startswith("--")), words
        case ["python", script, *_] if script.endswith(".py"):
            assert (ROOT / script).is_file(), script
        case ["gunicorn", *_]:
            assert words == commands.web()
        case ["celery", *_] if "-Q" in words:
            queues = words[words.index("-Q") + 1]
            device = "cuda" if "cuda" in queues else "cpu"
            assert words in (commands.control(), commands.worker(device, 2))
        case ["celery", "-A", "worker", "inspect", what]:
            assert what in ("ping", "active", "stats")
        case ["celery", "-A", "worker", "flower", *_]:
            pass  # of the package that the command before installs
        case ["docker", "compose", *arguments]:
            assert arguments[-3:] == ["up", "-d", "--build"]
            profiles = {name for service in COMPOSE["services"].values() for name in service.get("profiles", ())}
            assert set(arguments[:-3]) - {"--profile"} <= profiles
        case ["pip", "install", package]:
            extra = re.fullmatch(r"mien\[(\w+)\]", package)
            assert package == "flower" or (extra and extra[1] in EXTRAS), package
        case [program, *_]:
            assert program in PLAIN, f"nothing here knows {program!r}"


def parse(command: click.Command, arguments: list[str]) -> None:
    """Let click read the arguments as when they are typed; nothing runs."""
    words = ["1" if word == "ID" else word for word in arguments]
    typed = "mien"
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{typed} has no {words[0]}"
        typed, command = f"{typed} {words[0]}", command.commands[words[0]]
        words.pop(0)
    command.make_context(typed, words)


def test_the_operators_page_starts_all_processes() -> None:
    typed = [words for block, line in LINES if block.page == "docs/operator.md" for words in simple_commands(line)]
    for command in (["mien", "migrate"], commands.web(), commands.worker("cpu", 2), commands.control()):
        assert command in typed


@pytest.mark.parametrize("rule", READ_ONLY, ids=lambda rule: rule.pattern)
def test_no_command_is_excused_that_is_not_there(rule: Any) -> None:
    assert any(re.match(rule.pattern, line) for _, line in LINES), rule


@pytest.mark.parametrize("page", [path_of(page) for page in BY_HAND])
def test_a_block_that_holds_commands_says_so(page: str) -> None:
    for block in blocks_of(page):
        assert block.language in COMMAND_LANGUAGES + OTHER_LANGUAGES, block
        if block.language in ("text", ""):
            first = [line.split()[0] for line in block.text.splitlines() if line.split()]
            drawn = any("──" in line for line in block.text.splitlines())
            assert drawn or not {"mien", "make", "python", "curl", "celery", "docker", "pip"} & set(first), block


@pytest.mark.parametrize("page", [path_of(page) for page in BY_HAND])
def test_a_command_within_a_sentence_exists(page: str) -> None:
    """``mien status JOB``, ``make test``, ``python FILE`` in backticks; arguments may be left out."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`((?:mien|make|python) [^`]+)`", text):
        words = [word for one in simple_commands(span) for word in one]
        if words[0] == "mien":
            command: click.Command = main.loaded()
            words.pop(0)
            while isinstance(command, click.Group) and words and re.fullmatch("[a-z-]+", words[0]):
                assert words[0] in command.commands or words[0].startswith("-"), f"{page}: {span}"
                if words[0].startswith("-"):
                    break
                command = command.commands[words.pop(0)]
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            assert {word for word in words if word.startswith("--")} <= known | {"--help", "--version"}, (
                f"{page}: {span}"
            )
        else:
            check(words)
