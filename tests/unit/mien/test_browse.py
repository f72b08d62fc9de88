"""Looking around: only inside the roots, never through links, with counts as far as they are known."""

from __future__ import annotations

from pathlib import Path

import pytest

import mien.browse
from mien.browse import allowed_folders, look_into
from mien.errors import SourceError
from mien.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "photos"
    for name in ("a/inner", "b", ".hidden", "__MACOSX"):
        (root / name).mkdir(parents=True)
    for name in ("top.jpg", "a/1.jpg", "a/inner/2.png", "a/letter.txt", ".hidden/3.jpg"):
        (root / name).write_bytes(b"")
    (root / "way out").symlink_to(tmp_path)
    return Settings(data_dir=tmp_path / "data", roots=(root,))


def test_a_look_lists_folders_and_counts(settings: Settings) -> None:
    root = str(settings.roots[0])
    look = look_into(settings, root)
    assert [(folder.name, folder.images) for folder in look.folders] == [("a", 2), ("b", 0)]
    assert (look.images_here, look.images, look.parent) == (1, 3, None)
    inner = look_into(settings, f"{root}/a")
    assert (inner.images_here, inner.images, inner.parent) == (1, 2, root)
    assert [folder.images for folder in allowed_folders(settings)] == [3]


def test_nothing_outside_the_roots(settings: Settings, tmp_path: Path) -> None:
    root = settings.roots[0]
    for path in (str(tmp_path), f"{root}/..", f"{root}/way out", "relative", f"{root}/nowhere", f"{root}/top.jpg"):
        with pytest.raises(SourceError):
            look_into(settings, path)
    assert look_into(settings, str(tmp_path), anywhere=True).parent


def test_what_takes_too_long_is_not_counted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.browse, "COUNT_S", -1.0)
    look = look_into(settings, str(settings.roots[0]))
    assert look.folders[0].images is None and look.images is None
    assert look.images_here == 1
