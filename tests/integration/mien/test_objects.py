"""Object storage as a place of images: what is listed, what is read, and which fault is whose."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mien import objects
from mien.errors import ImageError, SourceError, UnavailableError
from mien.objects import SESSION_S, bucket_of
from mien.places import images_of, place_trouble, read_image, resolve_place
from mien.settings import Settings, load_settings
from mien.sources import Found, Skipped
from tests.support.redis import free_port
from tests.support.s3_server import S3

pytestmark = pytest.mark.s3
PLACE = b"s3://faces/study"


@pytest.fixture
def settings(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings that read from the private server with credentials of their own."""
    objects._store.cache_clear()  # no session of an earlier test's
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(s3.credentials(tmp_path / "credentials")))
    return load_settings(s3_endpoint_url=s3.url, roots=("s3://faces/study",))


def listed(settings: Settings, *, recursive: bool = True, **patterns: list[str]) -> list[Found | Skipped]:
    include, exclude = patterns.get("include", []), patterns.get("exclude", [])
    return list(images_of(settings, PLACE, recursive=recursive, include=include, exclude=exclude))


def test_keys_are_listed_in_the_order_of_their_bytes_exactly_as_they_are(s3: S3, settings: Settings) -> None:
    keys = ["B.jpg", "a b+c%20d.jpg", "a.JPG", "back\\slash.png", "new\nline.jpg", "sub//double.jpg", "sub/q.webp",
            "\u00fc.jpg", "\U0001f600.jpg", "\x01.jpg"]  # fmt: skip
    for key in keys:
        s3.put(f"study/{key}", key.encode())
    for key in (
        "study/",
        "study/sub/",
        "study/.hidden.jpg",
        "study/.git/x.jpg",
        "study/__MACOSX/x.jpg",
        "studyx/n.jpg",
    ):
        s3.put(key, b"")
    s3.put("study/notes.txt", b"")
    found = [item for item in listed(settings) if isinstance(item, Found)]
    assert [item.path for item in found] == sorted(key.encode() for key in keys)
    assert [item for item in listed(settings) if isinstance(item, Skipped)] == [Skipped(b"notes.txt", "not_an_image")]
    for item in found:
        assert item.size == len(item.path)
        assert read_image(settings, PLACE, item.path, etag=item.etag) == item.path
    assert [item.path for item in listed(settings, recursive=False) if isinstance(item, Found)] == sorted(
        key.encode() for key in keys if "/" not in key
    )
    chosen = listed(settings, include=["*.webp", "*.txt"], exclude=["n*"])
    assert [type(item) for item in chosen if item.path in (b"sub/q.webp", b"notes.txt")] == [Skipped, Found]


def test_more_keys_than_a_page_holds(s3: S3, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAGE", 3)
    for number in range(7):
        s3.put(f"study/{number:04d}.jpg", b"")
    assert [item.path for item in listed(settings)] == [b"%04d.jpg" % number for number in range(7)]


def test_an_object_that_is_gone_changed_or_too_large_is_its_own_matter(s3: S3, settings: Settings) -> None:
    s3.put("study/a.jpg", b"first")
    (item,) = listed(settings)
    assert isinstance(item, Found)
    s3.put("study/a.jpg", b"other")
    for key, etag, limit, code in (
        (b"a.jpg", item.etag, 100, "changed"),
        (b"a.jpg", None, 4, "file_too_large"),
        (b"gone.jpg", item.etag, 100, "missing"),
    ):
        with pytest.raises(ImageError) as caught:
            read_image(settings, PLACE, key, etag=etag, limit=limit)
        assert caught.value.code == code
    assert read_image(settings, PLACE, b"a.jpg", etag=None) == b"other"


def test_credentials_that_expire_are_nobodys_fault_and_renewed_ones_count_at_once(
    s3: S3, settings: Settings, tmp_path: Path
) -> None:
    s3.put("study/a.jpg", b"first")
    key = s3.new_key()
    s3.credentials(tmp_path / "credentials", key)
    s3.guard(on=True)
    assert read_image(settings, PLACE, b"a.jpg") == b"first"
    time.sleep(SESSION_S)
    s3.revoke(key)
    with pytest.raises(UnavailableError, match=r"refuses the server's credentials \(InvalidAccessKeyId\)"):
        read_image(settings, PLACE, b"a.jpg")
    _, identity = PLACE, None
    trouble = place_trouble(settings, PLACE, identity)
    assert trouble is not None
    assert key[0] not in trouble
    assert key[1] not in trouble
    s3.credentials(tmp_path / "credentials")
    time.sleep(SESSION_S)
    assert read_image(settings, PLACE, b"a.jpg") == b"first"
    assert place_trouble(settings, PLACE, identity) is None


def test_a_silent_server_and_a_lost_bucket_are_no_faults_of_an_object(s3: S3, settings: Settings) -> None:
    silent = load_settings(s3_endpoint_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError, match="does not answer"):
        read_image(silent, PLACE, b"a.jpg")
    with pytest.raises(UnavailableError, match="no such bucket"):
        read_image(settings, b"s3://nowhere", b"a.jpg")


def test_only_allowed_prefixes_may_be_named(s3: S3, settings: Settings) -> None:
    path, identity = resolve_place(settings, "s3://faces/study/2024/")
    assert path == b"s3://faces/study/2024"
    assert place_trouble(settings, path, identity) is None
    elsewhere = load_settings(s3_endpoint_url=f"http://127.0.0.1:{free_port()}")
    assert "another server" in (place_trouble(elsewhere, path, identity, ask=False) or "")
    for wrong, code in (
        ("s3://faces", "source_outside_roots"),
        ("s3://faces/studyx", "source_outside_roots"),
        ("s3://other/study", "source_outside_roots"),
        ("s3://", "source_missing"),
    ):
        with pytest.raises(SourceError) as caught:
            resolve_place(settings, wrong)
        assert caught.value.code == code
    with pytest.raises(SourceError, match="no such bucket"):
        resolve_place(settings, "s3://nowhere/x", anywhere=True)
    assert bucket_of(b"s3://faces//odd").prefix == "/odd/"


def test_a_folder_is_read_the_same_way(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    assert read_image(settings, bytes(tmp_path), b"a.jpg") == b"12345"
    with pytest.raises(ImageError, match="more than 4 bytes"):
        read_image(settings, bytes(tmp_path), b"a.jpg", limit=4)
