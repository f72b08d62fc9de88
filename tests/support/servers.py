"""Private servers for tests, each for as long as a block; and empty ledgers, migrated once for all tests."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg

from mien.database import Database
from mien.migrate import migrate
from tests.support.machine import lacking
from tests.support.postgres import USER, private_server, server_programs
from tests.support.redis import Redis

RUNNING_POSTGRES = "TEST_POSTGRES"
"""The socket's folder of a private server that runs already, for many short test sessions one after another."""


@contextmanager
def running_postgres() -> Iterator[str]:
    """A private PostgreSQL server; gives the folder of its socket."""
    if running := os.environ.get(RUNNING_POSTGRES):
        yield running
        return
    programs = server_programs()
    if programs is None:
        lacking("PostgreSQL's server programs are not installed (Debian: postgresql)")
    with private_server(programs) as folder:
        yield folder


@contextmanager
def empty_database(server: str, template: str = "template1") -> Iterator[str]:
    """A database of its own on this server; dropped at the end."""
    name = f"t{uuid.uuid4().hex}"
    with _connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield _url(server, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@cache
def migrated_ledger() -> bytes:
    """An empty SQLite ledger; migrating anew for each test would take most of its time."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.sqlite3"
        _migrate(f"sqlite:///{file}")
        return file.read_bytes()


@cache
def migrated_template(server: str) -> str:
    """The name of a database on this server that holds an empty ledger, for :func:`empty_database`."""
    name = f"template_{uuid.uuid4().hex}"
    with _connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    _migrate(_url(server, name))
    return name


def _connect(server: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(host=server, user=USER, dbname="postgres", autocommit=True)


def _url(server: str, name: str) -> str:
    return f"postgresql://{USER}@/{name}?host={server}"


def _migrate(url: str) -> None:
    db = Database(url)
    migrate(db)
    db.dispose()


@contextmanager
def running_redis(folder: Path) -> Iterator[Redis]:
    """A private Redis server."""
    program = shutil.which("redis-server")
    if program is None:
        lacking("redis-server is not installed (Debian: redis-server)")
    server = Redis(program, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
