"""How large a codebase is and how it is cut: lines, modules, functions, names, packages it needs.

    python -m benchmarks.codebase . /tmp/peers/rq-3.0.0 ...

counts each folder, which is a checkout or an unpacked source distribution. It reads the text; nothing of it is run.
docs/comparison.md has what it said and when. What is counted:

- lines: those that hold code; blank lines, comments and docstrings do not count;
- product: Python outside ``NOT_PRODUCT``; tests: Python in folders named ``tests`` or ``test``;
- public names: functions, classes and methods without a leading underscore, outside functions;
- dependencies: what the distribution requires by itself, extras and other platforms aside.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

TESTS = {"tests", "test"}
ASIDE = {"build", "dist", "mutants", "runs", "vendored"}
"""Folders that commands make, and those of other people's code."""
NOT_PRODUCT = {*TESTS, "benchmarks", "docs", "examples", "setup.py", "shared"}
LONGEST_MODULE = 400
LONGEST_FUNCTION = 60


@dataclass(frozen=True)
class Module:
    """One Python file."""

    path: Path
    lines: int
    """With blank lines, comments and docstrings."""
    code: int
    """Without them."""
    longest: tuple[int, str]
    """The longest function: its lines from ``def`` to its end, and its name."""
    names: int
    """Public functions, classes and methods."""


@dataclass(frozen=True)
class Codebase:
    """What one folder holds."""

    name: str
    product: tuple[Module, ...]
    tests: tuple[Module, ...]
    dependencies: int | None
    """None where the folder does not say."""

    def row(self) -> list[str]:
        """The figures, in the order of ``COLUMNS``."""
        sizes = [module.lines for module in self.product]
        longest = max(self.product, key=lambda module: module.lines)
        length, function, where = max((*module.longest, module.path.name) for module in self.product)
        return [
            self.name,
            f"{sum(module.code for module in self.product):,}",
            f"{len(self.product)}",
            f"{statistics.median(sizes):.0f}",
            f"{longest.lines:,} ({longest.path.name})",
            f"{sum(size > LONGEST_MODULE for size in sizes)}",
            f"{length} (`{function}`, {where})",
            f"{sum(module.longest[0] > LONGEST_FUNCTION for module in self.product)}",
            f"{sum(module.names for module in self.product):,}",
            "?" if self.dependencies is None else str(self.dependencies),
            f"{sum(module.code for module in self.tests):,}" if self.tests else "none here",
        ]


COLUMNS = (
    "codebase", "code lines", "modules", "median module", "longest module", f"modules over {LONGEST_MODULE}",
    "longest function", f"modules with one over {LONGEST_FUNCTION}", "public names", "dependencies", "test code lines",
)  # fmt: skip


def read(root: Path) -> Codebase:
    """Count what lies in ``root``."""
    product, tests = [], []
    for path in sorted(root.rglob("*.py")):
        parts = set(path.relative_to(root).parts)
        if parts & ASIDE or any(part.startswith(".") for part in parts):
            continue
        if parts & TESTS:
            tests.append(module(path))
        elif not parts & NOT_PRODUCT:
            product.append(module(path))
    name = root.resolve().name
    if (root / "pyproject.toml").exists() and "PKG-INFO" not in {entry.name for entry in root.iterdir()}:
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        name = f"{project['name']} {project['version']}"
    return Codebase(name, tuple(product), tuple(tests), dependencies(root))


def module(path: Path) -> Module:
    """Count one file."""
    text = path.read_text()
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max(((_length(node), node.name) for node in functions), default=(0, ""))
    return Module(
        path, len(text.splitlines()), len(_code_lines(path, tree)), longest, sum(1 for _ in public_names(tree))
    )


def public_names(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Functions and classes that others may use, and the methods of such classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from public_names(node)


def dependencies(root: Path) -> int | None:
    """How many distributions it requires on this platform's newest Pythons, as its metadata say."""
    if (root / "PKG-INFO").exists():
        found = HeaderParser().parsestr((root / "PKG-INFO").read_text()).get_all("Requires-Dist")
        if found is None:
            return None
        asked = [each for each in found if "extra ==" not in each]
    elif (root / "pyproject.toml").exists():
        asked = tomllib.loads((root / "pyproject.toml").read_text())["project"].get("dependencies", [])
    else:
        return None
    return len({re.split(r"[\s\[<>=!~;(]", each, maxsplit=1)[0].lower() for each in asked})


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _code_lines(path: Path, tree: ast.Module) -> set[int]:
    """The numbers of the lines on which a token of the program stands."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    silent.add(tokenize.ENCODING)
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in silent:
                lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def main(roots: list[str]) -> None:
    """Print a table, one row per folder."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("| --- " * len(COLUMNS) + "|")
    for root in roots or ["."]:
        print("| " + " | ".join(read(Path(root)).row()) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
