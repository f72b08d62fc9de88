"""The local token: one per data folder, closed to others, and refused when it is not."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mien.local_token import FILE_NAME, PREFIX, LocalTokenError, is_local_token, read_or_make_token


def test_it_is_made_once_closed_to_others_and_stays(tmp_path: Path) -> None:
    data = tmp_path / "not" / "made"
    token = read_or_make_token(data)
    assert token.startswith(PREFIX)
    assert stat.S_IMODE((data / FILE_NAME).stat().st_mode) == 0o600
    assert read_or_make_token(data) == token
    assert [path.name for path in data.iterdir()] == [FILE_NAME]
    assert read_or_make_token(tmp_path / "other") != token


def test_all_who_ask_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        tokens = set(threads.map(lambda _: read_or_make_token(tmp_path), range(64)))
    assert len(tokens) == 1


def test_only_the_token_itself_is_the_token(tmp_path: Path) -> None:
    token = read_or_make_token(tmp_path)
    assert is_local_token(tmp_path, token)
    for other in (
        "",
        PREFIX,
        token[:-1],
        token + "x",
        token.removeprefix(PREFIX),
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
    ):
        assert not is_local_token(tmp_path, other)


def test_one_that_others_can_read_or_that_is_damaged_is_refused(tmp_path: Path) -> None:
    read_or_make_token(tmp_path)
    path = tmp_path / FILE_NAME
    path.chmod(0o644)
    with pytest.raises(LocalTokenError, match="chmod 600"):
        read_or_make_token(tmp_path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(LocalTokenError, match="damaged"):
        read_or_make_token(tmp_path)


def test_a_data_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalTokenError, match="Not a directory"):
        read_or_make_token(tmp_path / "file" / "data")
