"""Imports point one way; a light worker and the front end stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "mien": {"cli", "web", "worker", "training", "flask", "torch", "transformers"},
    "web": {"cli", "worker", "training", "torch", "transformers", "numpy", "onnxruntime"},
    "worker": {"cli", "web", "training", "flask"},
    "training": {"cli", "web", "flask", "celery"},
    "migrations": {"cli", "web", "worker", "training"},
}
MAY_USE_OF_WORKER = {"classifier", "face_search", "crops"}


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_point_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in sorted(imports_of(path))
        if name.split(".")[0] in FORBIDDEN[package]
    ]
    assert wrong == []


def test_training_uses_only_what_serving_sees_of_the_worker() -> None:
    used = {
        name.split(".")[1]
        for path in (ROOT / "training").rglob("*.py")
        for name in imports_of(path)
        if name.startswith("worker.")
    }
    assert used <= MAY_USE_OF_WORKER, used


def test_the_command_line_imports_the_rest_only_inside_commands() -> None:
    heavy = {"flask", "torch", "transformers", "numpy", "PIL", "onnxruntime", "celery", "sqlalchemy"}
    code = "import cli.main, sys; print(' '.join(sorted({m.split('.')[0] for m in sys.modules})))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not heavy & set(loaded.split())


@pytest.mark.parametrize(
    ("module", "light"),
    [
        ("web.app", {"torch", "transformers", "numpy", "onnxruntime", "PIL"}),
        ("worker.tasks", {"torch", "transformers", "numpy", "onnxruntime", "PIL"}),
        ("worker.engine", {"torch", "transformers", "flask", "celery", "sqlalchemy"}),
    ],
)
def test_processes_load_no_more_than_they_need(module: str, light: set[str]) -> None:
    code = f"import {module}, sys; print(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not light & set(loaded.split())
