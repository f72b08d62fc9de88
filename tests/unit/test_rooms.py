"""Rooms stay small: no module of the product over 400 lines, no function over 60; what is longer is named with why."""

from __future__ import annotations

import ast
from pathlib import Path

from benchmarks.codebase import LONGEST_FUNCTION, LONGEST_MODULE

ROOT = Path(__file__).parents[2]
PRODUCT = ("cli", "mien", "migrations", "training", "web", "worker")
LISTS = {"migrations/versions/0001_the_ledger.py"}
"""The tables as they were made first: one statement each, one after the other, with nothing to name or to share."""
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text() for room in PRODUCT for path in (ROOT / room).rglob("*.py")
}


def test_no_module_is_over_400_lines() -> None:
    assert {name for name, text in TEXTS.items() if text.count("\n") > LONGEST_MODULE} == LISTS


def test_every_function_fits_a_screen() -> None:
    long = {
        name
        for name, text in TEXTS.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    }
    assert long == LISTS
