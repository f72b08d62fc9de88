"""Every error code that the source can give, read out of its syntax trees."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests.support.machine import ROOT

FOLDERS = ("mien", "web", "worker", "cli", "training")
_NAMES = ("code", "error_code", "notice_code")
_NO_CODES = {"Finding"}
"""What has a field ``code`` of another kind: `mien doctor` names its checks by it."""


@cache
def given_codes() -> dict[str, str]:
    """Each code that is written down in the source, and the first file that does.

    A code is what stands as a class's ``code``, as an argument for a parameter or field ``code``, ``error_code`` or
    ``notice_code`` of anything that is defined here, as a value of a variable or dictionary of codes, or first in the
    (code, sentence) that a function returns.
    """
    texts = {path: path.read_text() for path in sources() if path.relative_to(ROOT).as_posix() != "web/codes.py"}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    places = _places(list(trees.values()))
    constants = _constants(list(trees.values()))
    found: dict[str, str] = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            for value in _values_at(node, places):
                for code in _texts(value, constants):
                    found.setdefault(code, path.relative_to(ROOT).as_posix())
    return found


def _places(trees: list[ast.Module]) -> dict[str, set[int]]:
    """Of every function, method and class that takes a code: at which place among its arguments."""
    places: dict[str, set[int]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                _note(places, node.name, _parameters(node))
            elif isinstance(node, ast.ClassDef):
                fields = [
                    one.target.id
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                ]
                makers = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
                _note(places, node.name, _parameters(makers[0]) if makers else fields)
    for name in ("__init__", *_NO_CODES):
        places.pop(name, None)
    return places


def _note(places: dict[str, set[int]], name: str, parameters: list[str]) -> None:
    for wanted in _NAMES:
        if wanted in parameters:
            places.setdefault(name, set()).add(parameters.index(wanted))


def _parameters(function: ast.FunctionDef) -> list[str]:
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    return [name for name in names if name not in ("self", "cls")]


def _constants(trees: list[ast.Module]) -> dict[str, str]:
    """Module constants that hold a text, by name."""
    return {
        target.id: statement.value.value
        for tree in trees
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _values_at(node: ast.AST, places: dict[str, set[int]]) -> list[ast.expr]:
    """The expressions in this node that stand for a code."""
    match node:
        case ast.Call():
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _NO_CODES:
                return []
            by_place = [node.args[place] for place in places.get(name, ()) if place < len(node.args)]
            return [*by_place, *(one.value for one in node.keywords if one.arg in _NAMES)]
        case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
            name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
            if isinstance(value, ast.Dict):
                return value.values if name.strip("_").lower() == "codes" else []
            return [value] if name in _NAMES else []
        case ast.FunctionDef(returns=ast.expr() as returns) if "tuple[str, str]" in ast.unparse(returns):
            pairs = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
            return [pair.elts[0] for pair in pairs if isinstance(pair, ast.Tuple) and "_" in ast.unparse(pair.elts[0])]
    return []


def _texts(value: ast.expr, constants: dict[str, str]) -> list[str]:
    """The codes that an expression can be; none where it only hands one on."""
    match value:
        case ast.Constant(value=str() as text):
            return [text]
        case ast.IfExp():
            return [*_texts(value.body, constants), *_texts(value.orelse, constants)]
        case ast.BoolOp():
            return [text for one in value.values for text in _texts(one, constants)]
        case ast.Name() if value.id in constants:
            return [constants[value.id]]
        case ast.Call(func=ast.Attribute(attr="get"), args=[_, default]):  # a table of codes, with what holds otherwise
            return _texts(default, constants)
    return []


def sources() -> list[Path]:
    """Every module of the product."""
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
