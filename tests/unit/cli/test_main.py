"""The command line: light, one line per error, exit codes that scripts can use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli import main
from mien import __version__
from mien.errors import ModelError

HEAVY = (
    "sqlalchemy",
    "celery",
    "kombu",
    "requests",
    "numpy",
    "pydantic",
    "flask",
    "onnxruntime",
    "PIL",
    "rich",
    "torch",
)


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from cli.main import run
assert run(["--help"]) == 0
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["classify"], ["status"], ["jobs", "--limit", "none"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 2
    assert "Usage:" in capsys.readouterr().err


def test_an_error_is_one_line_and_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["classify", str(tmp_path / "nowhere")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mien: There is no folder ")
    assert said.count("\n") == 1


def test_a_bad_setting_names_its_variable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CHUNK_SIZE", "many")
    assert main.run(["settings"]) == 1
    assert "MIEN_CHUNK_SIZE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ModelError("no such model"), 1, "mien: no such model\n"),
        (KeyboardInterrupt(), 130, "mien: stopped\n"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, "mien: /x/y: Permission denied\n"),
    ],
)
def test_every_kind_of_error_is_explained(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main.mien, "main", fail)
    assert main.run([]) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_ours_is_one_line_and_its_traceback_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("an odd thing")

    monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(main.mien, "main", fail)
    assert main.run([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ZeroDivisionError: an odd thing" in said
    log = (tmp_path / "logs" / "cli.log").read_text()
    assert "Traceback" in log
    assert "an odd thing" in log
