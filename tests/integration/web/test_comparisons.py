"""Comparisons over HTTP, through the client and on the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from cli import main
from mien.client import Client
from mien.database import Database
from mien.errors import ConflictError, InvalidRequestError, NotFoundError, UnprocessableError
from mien.ledger.commit import ImageOutcome
from mien.ledger.lease import LeasedImage
from tests.integration.web.test_client import mien, url  # noqa: F401 - fixtures
from tests.support.ledger import bad, control, face, make_files, ok, work_off


def otherwise(image: LeasedImage) -> ImageOutcome:
    """One happy face as :func:`ok` finds it; in 00003 a sad one, in 00004 none."""
    if image.path == b"00004.jpg":
        return ImageOutcome(image.id, "no_face", sha256=image.path.ljust(32, b"\0"))
    faces = (face(0.2, 0.7, 0.1) if image.path == b"00003.jpg" else face(),)
    return ImageOutcome(image.id, "ok", sha256=image.path.ljust(32, b"\0"), faces=faces)


@pytest.fixture
def both(mien: Client, db: Database, photos: Path) -> tuple[str, str]:  # noqa: F811
    """Two jobs over the same six files."""
    make_files(photos, 6)
    made = []
    for answer in (ok, otherwise):
        made.append(mien.submit_folder(photos, faces="whole" if made else "detect").id)
        control(db).expand()
        work_off(db, answer)
    return made[0], made[1]


def test_through_the_client(mien: Client, both: tuple[str, str], photos: Path, db: Database) -> None:  # noqa: F811
    found = mien.compare(*both)
    assert (found.a.job, found.b.job) == both
    assert (found.images.same, found.images.differ, found.agreement) == (6, 2, 0.8)
    assert found.confusion[0][:2] == [4, 1]
    assert [item.file for item in mien.differences(*both, page_size=1)] == ["00003.jpg", "00004.jpg"]
    waiting = mien.submit_folder(photos).id
    for job, error in ((both[0], InvalidRequestError), (waiting, ConflictError), ("nothing", NotFoundError)):
        with pytest.raises(error):
            mien.compare(both[0], job)
        with pytest.raises(error):
            list(mien.differences(both[0], job))
    (photos / "sub").mkdir()
    make_files(photos / "sub", 1)
    elsewhere = mien.submit_folder(photos / "sub").id
    control(db).expand()
    work_off(db, bad)
    with pytest.raises(UnprocessableError) as caught:
        mien.compare(both[0], elsewhere)
    assert caught.value.code == "nothing_to_compare"


def test_on_the_command_line(
    url: str,  # noqa: F811
    both: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MIEN_URL", url)
    assert main.run(["compare", *both]) == 0
    said = capsys.readouterr().out
    for part in ("4 of 5 faces alike: 80.0 %", "00003.jpg", "00004.jpg", "of these differ", "Nobody has checked"):
        assert part in said
    table = tmp_path / "differences.csv"
    assert main.run(["compare", *both, "--csv", str(table)]) == 0
    capsys.readouterr()
    assert main.run(["compare", *both, "--csv", "-"]) == 0
    assert capsys.readouterr().out == table.read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [(row["file"], row["emotion_a"], row["emotion_b"]) for row in rows] == [
        ("00003.jpg", "happy", "sad"),
        ("00004.jpg", "happy", ""),
    ]
    assert main.run(["compare", *both, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faces"] == {"matched": 5, "agree": 4, "only_a": 1, "only_b": 0}
    assert main.run(["compare", both[0], both[0]]) == 1
    assert "not with itself" in capsys.readouterr().err
