"""The front end over both databases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from tests.support.postgres import USER, private_server, server_programs
from tests.support.web import make_app, parts_of


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The folder of a private server's socket."""
    programs = server_programs()
    if programs is None:
        reason = "PostgreSQL's server programs are not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with private_server(programs) as folder:
        yield folder


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database of its own."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(host=postgres_server, user=USER, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return f"postgresql://{USER}@/{name}?host={postgres_server}"


@pytest.fixture
def app(tmp_path: Path, db: Database) -> Iterator[Flask]:
    app = make_app(tmp_path, database_url=db.url.render_as_string(hide_password=False))
    yield app
    parts_of(app).db.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The one root."""
    return tmp_path / "photos"
