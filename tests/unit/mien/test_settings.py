"""Settings: each with name, default and meaning; bad values refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mien.errors import SettingsError
from mien.settings import load_settings


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MIEN_PORT", "http", "integer"),
        ("MIEN_PORT", "70000", "less than or equal to 65535"),
        ("MIEN_ROOTS", "/photos:relative", "'relative' is not"),
        ("MIEN_ROOTS", "s3://", "s3://bucket/prefix"),
        ("MIEN_S3_ENDPOINT_URL", "https://me:secret@minio", "without a name or password"),
        ("MIEN_DETECT_SIZE", "300", "multiple of 32"),
        ("MIEN_PRECISION", "fp8", "fp32"),
        ("MIEN_BOOTSTRAP_KEY", "short", "32 to 200"),
        ("MIEN_BOOTSTRAP_KEY", "k" * 40, "can be guessed"),
        ("MIEN_BOOTSTRAP_KEY", "mien_change-me-0123456789abcdef0123456789", "can be guessed"),
        ("MIEN_BOOTSTRAP_KEY", "my-password-is-long-enough-for-32-characters", "can be guessed"),
        ("MIEN_CHUNK_SIZE", "0", "greater than or equal to 1"),
    ],
)
def test_a_bad_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert variable in caught.value.detail
    assert says in caught.value.detail


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIEN_ROOTS", f"/photos:{tmp_path}")
    monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MIEN_ALLOWED_HOSTS", "mien.example, photos.example")
    settings = load_settings()
    assert settings.roots == (Path("/photos"), tmp_path)
    assert settings.allowed_hosts == ("mien.example", "photos.example")
    assert settings.database == f"sqlite:///{tmp_path}/mien.sqlite3"
    assert settings.models == tmp_path / "models"


def test_roots_may_be_folders_and_object_storage_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, roots in (
        ("s3://faces", ("s3://faces",)),
        ("/photos:s3://faces/2024/:/more", (Path("/photos"), "s3://faces/2024/", Path("/more"))),
        ("s3://one:s3://two/x", ("s3://one", "s3://two/x")),
        ("/data/s3:/s3:", (Path("/data/s3"), Path("/s3"))),
    ):
        monkeypatch.setenv("MIEN_ROOTS", value)
        assert load_settings().roots == roots


def test_secrets_are_not_shown() -> None:
    key = "mien_9f86d081884c7d659a2feaa0c55ad015"
    assert key not in repr(load_settings(bootstrap_key=key, api_key=key))
