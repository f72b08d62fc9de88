"""Files that appear whole or not at all, tables, and words for numbers."""

from __future__ import annotations

import stat
from pathlib import Path

import click
import pytest

from cli.classify import outputs_of, provenance_path
from cli.output import check_target, count, seconds, show_table, whole_file
from mien.errors import UnprocessableError


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    target.chmod(0o640)
    with pytest.raises(RuntimeError), whole_file(target) as file:
        file.write(b"half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with whole_file(target) as file:
        file.write(b"new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnprocessableError, match="is a folder"):
        check_target(tmp_path, "--csv")
    with pytest.raises(UnprocessableError, match="there is no folder"):
        check_target(tmp_path / "nowhere" / "x.csv", "--csv")
    check_target(Path("just-a-name.csv"), "--csv")


def test_two_outputs_cannot_be_one_file(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError):
        outputs_of(str(tmp_path / "a"), f"{tmp_path}/./a", None, None)
    with pytest.raises(click.UsageError):
        outputs_of("-", "-", None, None)
    assert [output.kind for output in outputs_of("-", None, "i.csv", "e.csv")] == [
        "results.csv",
        "images.csv",
        "errors.csv",
    ]


@pytest.mark.parametrize(
    ("csv", "provenance"),
    [
        ("results.csv", "results.job.json"),
        ("a.b.csv", "a.b.job.json"),
        ("plain", "plain.job.json"),
        (".x", ".x.job.json"),
    ],
)
def test_the_provenance_stands_beside_its_csv(csv: str, provenance: str) -> None:
    assert provenance_path(Path("/some/where") / csv) == Path("/some/where") / provenance


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name", "n"), [("a", 1), ("longer", 1000)], right=(1,))
    assert capsys.readouterr().out == "name       n\na          1\nlonger  1000\n"


def test_words_for_numbers() -> None:
    assert [seconds(s) for s in (None, 0.4, 59.4, 61, 3600, 7505)] == [
        "?",
        "0 s",
        "59 s",
        "1 min 1 s",
        "1 h 0 min",
        "2 h 5 min",
    ]
    assert [count(n, "face") for n in (0, 1, 1_000_000)] == ["0 faces", "1 face", "1,000,000 faces"]
    assert count(2, "entry", "entries") == "2 entries"
