"""Private servers for tests, each for as long as a block."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

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
def empty_database(server: str) -> Iterator[str]:
    """A database of its own on this server; dropped at the end."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(host=server, user=USER, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://{USER}@/{name}?host={server}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


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
