"""What every test may use: the shared data, private servers, and one rule for what a machine lacks.

On a person's machine a test whose server or data is missing is skipped with the reason. In CI (``CI`` is set) nothing
may be missing: there it fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import properties  # noqa: F401 - the profiles of the property-based tests
from tests.support.machine import ROOT, lacking
from tests.support.redis import Redis
from tests.support.s3_server import S3, running_s3
from tests.support.servers import empty_database, running_postgres, running_redis


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the settings, or touches the data folder, of a Mien that this person runs."""
    for name in os.environ:
        if name.startswith("MIEN_") and name != "MIEN_SHARED":
            monkeypatch.delenv(name)
    monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path_factory.getbasetemp() / "unset-data-dir"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data (``MIEN_SHARED``, by default ``../shared``)."""
    folder = Path(os.environ.get("MIEN_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        lacking(f"the shared data is not at {folder}; name its folder in MIEN_SHARED")
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The folder of a private PostgreSQL server's socket."""
    with running_postgres() as folder:
        yield folder


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database of its own."""
    with empty_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A private S3 server."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3) -> S3:
    """The private S3 server, its bucket empty, nobody kept out."""
    s3_server.guard(on=False)
    s3_server.empty()
    return s3_server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A private Redis server."""
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
def redis_url(redis: Redis) -> str:
    """The address of a private Redis server."""
    return redis.url
