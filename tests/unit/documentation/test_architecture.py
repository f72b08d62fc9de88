"""docs/architecture.md is a true picture: its arrows are those of the code, and what it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.test_imports import FORBIDDEN, imports_of

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = {"cli", "mien", "migrations", "training", "web", "worker"}
DRAWN = {(a, b) for a, b in re.findall(r"^ +(\w+) --> (\w+)$", PAGE, re.MULTILINE)}
NAMED = sorted(set(re.findall(rf"`((?:{'|'.join(sorted(ROOMS))})(?:\.\w+)+)`", PAGE)))


def test_the_arrows_are_those_of_the_code() -> None:
    found = {
        (room, name.split(".")[0])
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for name in imports_of(path)
        if name.split(".")[0] in ROOMS - {room}
    }
    assert found == DRAWN


def test_what_is_not_drawn_is_forbidden() -> None:
    for room in ROOMS - {"cli"}:  # cli may import all
        drawn = {to for start, to in DRAWN if start == room}
        assert (FORBIDDEN[room] & ROOMS) | drawn | {room, "migrations"} == ROOMS | {"migrations"}, room
        assert not FORBIDDEN[room] & drawn, room


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_is_there(name: str) -> None:
    parts = name.split(".")
    path = ROOT
    while parts and ((path / parts[0]).is_dir() or (path / f"{parts[0]}.py").exists()):
        path /= parts.pop(0)
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert source.exists(), name
    body = _tree(source).body
    for part in parts:
        found = [n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part]
        assert found, f"{source.relative_to(ROOT)} has no {part}"
        body = found[0].body


def test_every_module_of_the_domain_has_its_place() -> None:
    table = PAGE.split("| about | modules of `mien` |")[1].split("\n\n")[0]
    placed = re.findall(r"`(\w+)`", table)
    assert sorted(placed) == sorted(path.stem for path in (ROOT / "mien").glob("*.py") if path.stem != "__init__")


def test_every_room_says_what_lives_there() -> None:
    for room in ROOMS - {"migrations"}:
        assert re.search(rf"^\*\*`{room}`\*\* ", PAGE, re.MULTILINE), room
        assert ast.get_docstring(_tree(ROOT / room / "__init__.py")), room


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())
