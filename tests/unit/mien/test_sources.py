"""Walking a folder and opening what it holds, without ever leaving it."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from mien.errors import ImageError, SourceError
from mien.sources import Found, Skipped, folder_identity, open_image, resolve_folder, walk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "._a.png", "Thumbs.db", "sub/c.webp", "sub/deep/d.tiff"):
        (root / name).write_bytes(name.encode())
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "a.jpg").write_bytes(b"x")
    return root


def found(root: Path, **options: object) -> list[bytes]:
    return sorted(item.path for item in walk(bytes(root), **options) if isinstance(item, Found))  # type: ignore[arg-type]


def skipped(root: Path, **options: object) -> dict[bytes, str]:
    return {item.path: item.reason for item in walk(bytes(root), **options) if isinstance(item, Skipped)}  # type: ignore[arg-type]


def test_images_are_told_by_their_ending_in_every_folder(folder: Path) -> None:
    assert found(folder) == [b"a.png", b"b.JPG", b"sub/c.webp", b"sub/deep/d.tiff"]
    assert skipped(folder) == {b"notes.txt": "not_an_image"}


def test_not_recursive(folder: Path) -> None:
    assert found(folder, recursive=False) == [b"a.png", b"b.JPG"]


def test_include_replaces_the_endings_and_exclude_comes_after(folder: Path) -> None:
    assert found(folder, include=["*.txt", "*.png"]) == [b"a.png", b"notes.txt"]
    assert found(folder, exclude=["sub/*"]) == [b"a.png", b"b.JPG"]
    assert found(folder, exclude=["d.tiff"]) == [b"a.png", b"b.JPG", b"sub/c.webp"]
    assert skipped(folder, exclude=["*.png"])[b"a.png"] == "excluded"


def test_names_are_bytes(folder: Path) -> None:
    odd = [b"new\nline.jpg", b"\xff\xfe.jpg", "q\"u'o,te;é😀.jpg".encode(), b" .jpg"]
    for name in odd:
        os.close(os.open(bytes(folder) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert set(odd) <= set(found(folder))


def test_links(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(b"secret")
    (folder / "in.jpg").symlink_to(folder / "a.png")
    (folder / "out.jpg").symlink_to(outside / "secret.jpg")
    (folder / "up.jpg").symlink_to("../outside/secret.jpg")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "dir.jpg").symlink_to(outside)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    assert b"dir.jpg/secret.jpg" not in found(folder)
    assert skipped(folder)[b"dir.jpg"] == "link_to_folder"
    descriptor = open_image(bytes(folder), b"in.jpg")
    assert os.read(descriptor, 10) == b"a.png"
    os.close(descriptor)
    for name, code in ((b"out.jpg", "outside_root"), (b"up.jpg", "outside_root"), (b"broken.jpg", "missing")):
        with pytest.raises(ImageError) as caught:
            open_image(bytes(folder), name)
        assert caught.value.code == code
    with pytest.raises(ImageError):
        open_image(bytes(folder), b"loop.jpg")


def test_a_folder_swapped_for_a_link_is_not_followed_out(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.webp").write_bytes(b"secret")
    (folder / "sub" / "c.webp").unlink()
    (folder / "sub" / "deep" / "d.tiff").unlink()
    (folder / "sub" / "deep").rmdir()
    (folder / "sub").rmdir()
    (folder / "sub").symlink_to(outside)
    with pytest.raises(ImageError) as caught:
        open_image(bytes(folder), b"sub/c.webp")
    assert caught.value.code == "outside_root"


def test_a_folder_swapped_for_a_link_during_the_walk_is_not_entered(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(b"secret")
    walking = walk(bytes(folder))
    first = next(walking)  # the names in the root are read by now, its folders have not been entered
    shutil.rmtree(folder / "sub")
    (folder / "sub").symlink_to(outside)
    rest = [first, *walking]
    assert b"sub/secret.jpg" not in {item.path for item in rest}
    assert Skipped(b"sub", "unreadable_folder") in rest


def test_a_root_swapped_for_a_link_is_another_folder(folder: Path, tmp_path: Path) -> None:
    identity = folder_identity(bytes(folder))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.png").write_bytes(b"secret")
    os.close(open_image(bytes(folder), b"a.png", identity))
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "outside")
    with pytest.raises(ImageError) as caught:
        open_image(bytes(folder), b"a.png", identity)
    assert caught.value.code == "source_away"


@pytest.mark.parametrize("path", [b"../outside.jpg", b"sub/../a.png", b"/etc/hostname", b"", b"sub//c.webp", b"."])
def test_paths_that_do_not_stay_inside(folder: Path, path: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(bytes(folder), path)
    assert caught.value.code == "outside_root"


def test_what_is_no_file_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.jpg"))
        assert skipped(folder)[b"pipe.jpg"] == "not_a_file"
        for name in (b"pipe.jpg", b"folder.jpg", b"socket.jpg"):
            with pytest.raises(ImageError) as caught:
                open_image(bytes(folder), name)
            assert caught.value.code == "not_a_file"


def test_missing_and_unreadable(folder: Path) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(bytes(folder), b"gone.jpg")
    assert caught.value.code == "missing"
    with pytest.raises(ImageError) as caught:
        open_image(bytes(folder), b"a.png/x.jpg")
    assert caught.value.code in ("missing", "not_a_file")


def test_no_descriptor_is_left_open(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    for name in (b"a.png", b"sub/deep/d.tiff", b"gone.jpg", b"sub/gone.jpg", b"../x"):
        try:
            os.close(open_image(bytes(folder), name))
        except ImageError:
            continue
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    assert after == before


def test_a_folder_has_to_lie_inside_the_roots(folder: Path, tmp_path: Path) -> None:
    real, identity = resolve_folder(str(folder / "sub"), [folder])
    assert real == bytes(folder / "sub")
    assert identity == folder_identity(real)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert resolve_folder(str(link / "sub"), [folder])[0] == bytes(folder / "sub")
    for path, code in (
        (str(tmp_path), "source_outside_roots"),
        (str(folder) + "2", "source_outside_roots"),
        (str(folder / ".." / "other"), "source_outside_roots"),
        (str(folder / "gone"), "source_missing"),
        (str(folder / "a.png"), "source_not_a_folder"),
        ("relative", "source_missing"),
        ("/tmp/\0", "source_missing"),
    ):
        with pytest.raises(SourceError) as caught:
            resolve_folder(path, [folder])
        assert caught.value.code == code, path
    with pytest.raises(SourceError) as caught:
        resolve_folder(str(folder), [])
    assert "MIEN_ROOTS" in caught.value.detail


def test_another_folder_in_the_same_place_is_told_apart(folder: Path, tmp_path: Path) -> None:
    before = folder_identity(bytes(folder))
    folder.rename(tmp_path / "moved")
    assert folder_identity(bytes(folder)) is None
    folder.mkdir()
    assert folder_identity(bytes(folder)) not in (None, before)
