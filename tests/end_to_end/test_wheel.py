"""The wheel holds everything: in an environment of its own it classifies in another folder, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from mien.resources import resource
from tests.end_to_end.system import SHORT, rows_of
from tests.support.machine import ROOT, SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend that pip would call."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_declares_all_that_the_program_needs_to_run(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {
        "migrations": "mien/_data/migrations",
        "samples": "mien/_data/samples",
        "models/default": "mien/_data/models/default",
        "web/templates": "web/templates",
        "web/static": "web/static",
        "worker/yunet": "worker/yunet",
    }
    for source, place in shipped.items():
        files = [path for path in (ROOT / source).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files, source
        missing = [str(path) for path in files if f"{place}/{path.relative_to(ROOT / source)}" not in names]
        assert missing == []
    assert not [name for name in names if name.startswith(("tests/", "shared/", "benchmarks/"))]
    assert {"LICENSE", "NOTICE"} <= {name.rpartition("/")[2] for name in names if ".dist-info/" in name}


def test_it_classifies_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # the dependencies of this environment, without its link to the checkout
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(SAMPLES, elsewhere / "photos")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MIEN_", "PYTHON"))}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [home / "bin" / "python", *arguments],
            cwd=elsewhere,
            env={**environment, **SHORT, "MIEN_DATA_DIR": str(tmp_path / "data"), "MIEN_PORT": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run(
        "-c", "import cli, mien, web, worker; print(cli.__file__, mien.__file__, web.__file__, worker.__file__)"
    )
    assert all(path.startswith(str(site)) for path in where.split())
    run("-m", "cli.main", "classify", "photos", "--csv", "out.csv")
    rows = rows_of(elsewhere / "out.csv")
    assert {row["status"] for row in rows} == {"ok", "no_face"}
    assert len(rows) == 10
    assert resource("samples") == SAMPLES
