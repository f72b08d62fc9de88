"""The same tests on both ways to run Mien: embedded (SQLite, own broker) and production (PostgreSQL, Redis)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from mien.models import ModelStore
from tests.end_to_end.system import ByHand, Mien
from tests.support.machine import SAMPLES
from tests.support.redis import free_port
from tests.support.servers import empty_database, running_redis
from tests.support.tiny_model import make_tiny_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts the real processes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers can be computed by hand."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def embedded(tmp_path: Path, tiny_model: Path) -> Iterator[Mien]:
    """A Mien with a data folder of its own, not running yet."""
    mien = Mien(tmp_path / "data", {"MIEN_MODEL": "tiny"})
    ModelStore(mien.data / "models").install(tiny_model)
    yield mien
    left = mien.parts()
    mien.kill_everything()
    assert not left, f"processes were left behind: {[(part.part, part.process.pid) for part in left]}"


@pytest.fixture
def by_hand(tmp_path: Path, tiny_model: Path, postgres_url: str, redis_url: str) -> Iterator[ByHand]:
    """A production Mien of its own: migrated, with a first key, its three processes running."""
    with production(tmp_path, tiny_model, postgres_url, redis_url) as processes:
        yield processes


@contextmanager
def production(
    folder: Path, model: Path, database: str, broker: str, more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[ByHand]:
    """A production Mien for as long as a block; ``more`` are settings of its own."""
    key, port = secrets.token_urlsafe(32), free_port()
    mien = Mien(
        folder / "data",
        {
            "MIEN_MODEL": "tiny",
            "MIEN_DATABASE_URL": database,
            "MIEN_BROKER_URL": broker,
            "MIEN_BOOTSTRAP_KEY": key,
            "MIEN_API_KEY": key,
            "MIEN_ROOTS": str(folder.parent),
            "MIEN_HOST": "0.0.0.0",  # noqa: S104 - as in a container: a key is required then
            "MIEN_PORT": str(port),
            "MIEN_URL": f"http://127.0.0.1:{port}",
            **more,
        },
    )
    ModelStore(mien.data / "models").install(model)
    mien.run("migrate")
    processes = ByHand(mien)
    try:
        for name in ("web", "worker", "control"):
            processes.start(name)
        mien.wait_for(mien.answers, "the front end answers")
        yield processes
    finally:
        processes.stop()


@pytest.fixture(scope="session")
def shared_embedded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Mien]:
    """`mien up`, running for all tests that harm nothing."""
    mien = Mien(tmp_path_factory.mktemp("embedded") / "data", {"MIEN_MODEL": "tiny"})
    ModelStore(mien.data / "models").install(tiny_model)
    with mien.up():
        yield mien


@pytest.fixture(scope="session")
def shared_production(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, postgres_server: str
) -> Iterator[Mien]:
    """A production Mien, running for all tests that harm nothing."""
    folder = tmp_path_factory.mktemp("production")
    with (
        empty_database(postgres_server) as database,
        running_redis(folder) as redis,
        production(folder, tiny_model, database, redis.url) as processes,
    ):
        yield processes.mien


WAYS = ["embedded", pytest.param("production", marks=[pytest.mark.postgres, pytest.mark.redis])]


@pytest.fixture(params=WAYS)
def mien(request: pytest.FixtureRequest) -> Mien:
    """A Mien that runs for all tests that harm nothing, either way; it starts once."""
    found: Mien = request.getfixturevalue(f"shared_{request.param}")
    return found


@pytest.fixture
def running_mien(mien: Mien) -> Mien:
    """The same, by a name that says so."""
    return mien


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An empty folder for photographs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def many(photos: Path) -> Callable[[int], Path]:
    """Makes a folder of so many different JPEGs with one face each: some seconds of work per hundred."""

    def make(count: int) -> Path:
        portrait = (SAMPLES / "astronaut.jpg").read_bytes()
        for number in range(count):
            # what follows the end of a JPEG changes its SHA-256 and nothing else
            (photos / f"{number:05d}.jpg").write_bytes(portrait + b"%d" % number)
        return photos

    return make
