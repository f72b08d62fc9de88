"""docs/security.md: each threat has a guard and a test, and each test that is named is there."""

from __future__ import annotations

import re

import pytest

from tests.support.machine import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))
ROWS = [line for line in PAGE.partition("## Threats")[2].splitlines() if line.startswith("| ") and "---" not in line]


def test_every_threat_names_a_test() -> None:
    threats = [row for row in ROWS if not row.startswith("| threat |")]
    assert len(threats) > 30
    for row in threats:
        assert len(row.split(" | ")) == 3, row
        assert "`tests/" in row.split(" | ")[2], row


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_each_named_test_exists(file: str, name: str) -> None:
    path = ROOT / file
    assert path.is_file(), f"docs/security.md names {file}, which is not there"
    if name:
        assert re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE), f"{file} has no test {name}"
