"""The benchmark for GPU machines runs, small and on the CPU, with torch, transformers, numpy and Pillow alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BARE = """
import importlib.machinery, sys
ABSENT = {"pydantic", "pydantic_settings", "sqlalchemy", "celery", "flask", "redis", "cv2", "platformdirs"}
STOOD_IN = {"simplejpeg", "psutil", "onnxruntime"}
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(name, name=name)
        if name in STOOD_IN:
            bare = [path for path in sys.path if path.endswith("benchmarks/bare")]
            spec = importlib.machinery.PathFinder.find_spec(name, bare)
            if spec is None:
                raise ModuleNotFoundError(name, name=name)
            return spec
        return None
sys.meta_path.insert(0, Bare())
"""


@pytest.mark.torch
@pytest.mark.timeout(600)  # it starts eight processes that import torch or decode
def test_it_checks_measures_and_writes_on_a_bare_machine(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "sitecustomize.py").write_text(BARE)
    out = tmp_path / "gpu.json"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", "--json", str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    figures = json.loads(out.read_text())
    assert set(figures["stand_ins"]) == {"simplejpeg", "psutil", "onnxruntime"}
    assert figures["left_out"] == []
    checks = figures["correctness"]
    assert set(checks) == {"vit-small", "default"}
    assert all(check["within bounds"] for check in checks.values())
    assert all(check["spread"] > 0.02 for check in checks.values())  # the answers differ, so agreeing means something
    for name in ("decode", "peer", "end_to_end_ratio"):
        assert figures[name] > 0
    assert figures["end_to_end"]["images"] >= 24
    assert figures["fed"]["plain"] > 0
    assert "| end to end over the lower ceiling |" in ran.stdout
    assert f"| {figures['best_batch']} |" in ran.stdout
