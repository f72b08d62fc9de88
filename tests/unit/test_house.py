"""The papers of the house are true: licences, citation, changelog, hooks, versions."""

from __future__ import annotations

import re
import sys
import tomllib

import pytest
import yaml

from mien import __version__
from requirements.licences import OTHERWISE, UNKNOWN, licence, locked
from tests.support.machine import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LICENCES = dict(
    re.findall(r"^\| ([a-z0-9][a-z0-9-]*) \| ([^|]+) \|$", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
)
LOCKS = ("default", "cuda", "check", "test")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_is_listed_with_a_licence(lock: str) -> None:
    assert {name for name in locked(lock) if LICENCES.get(name, UNKNOWN) == UNKNOWN} == set(), (
        "run: python requirements/licences.py"
    )


def test_no_package_is_listed_that_is_locked_no_more() -> None:
    assert set(LICENCES) - {"package"} - {name for lock in LOCKS for name in locked(lock)} == set()
    assert set(OTHERWISE) <= set(LICENCES)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other Pythons install other versions of some packages")
def test_the_licences_are_those_that_the_packages_declare() -> None:
    declared = {name: licence(name) for name in locked("default")}
    assert {name: LICENCES[name] for name in declared} == declared, "run: python requirements/licences.py"


@pytest.mark.parametrize("name", ["GPL", "AGPL", "SSPL", "Commons-Clause"])
def test_nothing_that_binds_whoever_uses_mien_is_installed_by_default(name: str) -> None:
    assert [package for package in locked("default") if re.search(rf"(?<!L){name}", LICENCES[package])] == []


def test_there_is_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert PROJECT["version"] == citation["version"] == __version__


def test_the_citation_has_what_its_format_asks_for() -> None:
    """Citation File Format 1.2.0: the four required keys, and the types of those that are there."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert all(isinstance(citation[key], str) and citation[key] for key in ("message", "title", "abstract"))
    assert citation["authors"]
    assert all("name" in author or {"family-names", "given-names"} <= author.keys() for author in citation["authors"])


def test_the_changelog_keeps_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert [v for v in versions[1:] if not re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", v)] == []
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {line.removeprefix("### ") for line in lines if line.startswith("### ")} <= kinds
    current = PROJECT["version"]
    released = [v for v in versions if v.startswith(f"## [{current}]")]
    assert released or f"{current}, is being made" in "\n".join(lines)


def test_the_hooks_are_what_lint_runs() -> None:
    """The same programs with the same arguments; ruff sees the committed files only, and formats instead of judging."""
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    assert all(hook["language"] == "system" for hook in hooks)  # the locked versions, not others
    said = {hook["id"]: hook["entry"].replace(".venv/bin/", "$(BIN)/") for hook in hooks}
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^lint-check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    bandit = re.search(r"^BANDIT := (.*)$", makefile, re.MULTILINE)
    assert recipe
    assert bandit
    assert said["bandit"] == bandit[1]
    assert re.findall(r"@(?:\$\(BIN\)/)?(ruff \w+|\$\(BANDIT\))", recipe[1]) == [
        "ruff check",
        "ruff format",
        "$(BANDIT)",
    ]
    assert "&& wait $$bandit" in recipe[1]  # it runs beside mypy, and counts
    assert said["ruff-check"] == "$(BIN)/ruff check --force-exclude"
    assert said["ruff-format"] == "$(BIN)/ruff format --force-exclude"
    torchless = re.search(r"^TORCHLESS := (.*)$", makefile, re.MULTILINE)
    assert torchless
    assert f"exec $(BIN)/mypy {torchless[1]}" in said["mypy"]
    assert "import torch" in recipe[1]
    assert "import torch" in said["mypy"]
    assert set(said) == {"ruff-check", "bandit", "ruff-format", "mypy"}
