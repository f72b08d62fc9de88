"""requirements/install.sh says what is missing; the scripts keep to what bash 3.2 and GNU Make 3.81 know."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.machine import ROOT

BARE_PATH = "/usr/bin:/bin"
SCRIPTS = [ROOT / "requirements" / "install.sh", ROOT / ".ci" / "run"]


def install(tmp_path: Path, python: Path, level: str = "default") -> subprocess.CompletedProcess[str]:
    """Run the script with this interpreter and without uv."""
    return subprocess.run(
        ["/bin/bash", str(ROOT / "requirements" / "install.sh"), level],
        env={"PATH": BARE_PATH, "HOME": str(tmp_path), "PYTHON": str(python), "VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        check=False,
    )


def stand_in(tmp_path: Path, *, suitable: bool) -> Path:
    """A python that is 3.11 (or too old) and, as on a bare Debian, has no ensurepip."""
    python = tmp_path / "python3.11"
    python.write_text(
        "#!/bin/bash\n"
        'case "$2" in\n'
        f"  *version_info\\[:2\\]\\ \\<=*) exit {0 if suitable else 1} ;;\n"
        '  *"%d.%d"*) echo 3.11 ;;\n'
        "  *ensurepip*) exit 1 ;;\n"
        "esac\n"
        '[ "$1" = --version ] && echo "Python 3.11.2"\n'
        "exit 0\n"
    )
    python.chmod(0o755)
    return python


def test_a_python_without_venv_is_told_which_package_is_missing(tmp_path: Path) -> None:
    done = install(tmp_path, stand_in(tmp_path, suitable=True))
    assert done.returncode == 1
    assert "python3.11-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_of_another_version_is_refused(tmp_path: Path) -> None:
    done = install(tmp_path, stand_in(tmp_path, suitable=False))
    assert done.returncode == 1
    assert "Python 3.11, 3.12, 3.13 or 3.14 is needed" in done.stderr


def test_only_the_three_sets_are_known(tmp_path: Path) -> None:
    done = install(tmp_path, stand_in(tmp_path, suitable=True), "everything")
    assert done.returncode == 1
    assert "not one of default, check, test" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_well_formed_and_old_fashioned(script: Path) -> None:
    subprocess.run(["/bin/bash", "-n", str(script)], check=True)
    text = re.sub(r"#.*", "", script.read_text())
    newer = r"\$\{\w+(,,?|\^\^?)|mapfile|readarray|declare -A|local -n|\|&|&>>|coproc|\[\[ -v"
    assert re.findall(newer, text) == []


def test_the_makefile_keeps_to_make_3_81() -> None:
    text = (ROOT / "Makefile").read_text()
    assert re.findall(r"^\.ONESHELL|!=|\$\(file |::=|\$\(let |\$\(intcmp |^\.EXTRA_PREREQS", text, re.MULTILINE) == []
