"""The commands in docs/api.md do what the page says: each is run against a real Mien, as it stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mien.client import Client
from tests.end_to_end.system import Mien
from tests.support.documents import COMMAND_LANGUAGES, blocks_of
from tests.support.machine import SAMPLES, lacking

PRELUDE = """
set -euo pipefail
curl() { command curl --fail-with-body --max-time 60 "$@" || { echo "refused: curl $*" >&2; return 22; }; }
ID=$(cat id)
"""


def test_every_command_of_the_guide_works(embedded: Mien, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        lacking("curl is not installed")
    pytest.importorskip("pandas", reason="the guide makes a data frame: pip install pandas")
    photos, work = tmp_path / "photos", tmp_path / "work"
    (photos / "sub").mkdir(parents=True)
    work.mkdir()
    for name in ("a.jpg", "b.jpg", "sub/c.jpg", "sub/d.jpg"):
        (photos / name).write_bytes((SAMPLES / "astronaut.jpg").read_bytes() + name.encode())
    for name in ("one.jpg", "two.jpg", "three.jpg", "portrait.jpg"):
        shutil.copy(SAMPLES / "astronaut.jpg", work / name)
    with tarfile.open(work / "photos.tar.gz", "w:gz") as archive:
        archive.add(photos, "archive")
    (work / "id").write_text("none")
    blocks = [block for block in blocks_of("docs/api.md") if block.language in COMMAND_LANGUAGES]
    assert len(blocks) >= 8
    with embedded.up(photos), Client(embedded.url(), embedded.key()) as client:
        for block in blocks:
            here = block.text.replace("http://127.0.0.1:8616", embedded.url()).replace("/photos/2026", str(photos))
            here = here.replace('"emotion": "happy"', '"emotion": "grey"')  # a label of the model here
            shell = ["bash", "-c", f"{PRELUDE}\n{here}\necho $ID > id"]
            done = subprocess.run(
                shell if block.language == "sh" else [sys.executable, "-c", here],
                cwd=work,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
                env={"PATH": os.environ["PATH"]},
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            embedded.wait_for(lambda: _is_settled(client, (work / "id").read_text().strip()), "the job has ended")
    parts = (work / "part.1.jsonl").read_bytes() + (work / "part.2.jsonl").read_bytes()
    assert parts.count(b"\n") >= 4
    assert (work / "results.parquet").read_bytes().startswith(b"PAR1")
    assert (work / "results.csv").read_text().startswith("file,face,")


def _is_settled(client: Client, job: str) -> bool:
    return client.job(job).is_final
