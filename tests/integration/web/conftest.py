"""The front end over both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from tests.support.web import close_app, make_app


@pytest.fixture
def app(tmp_path: Path, db: Database) -> Iterator[Flask]:
    app = make_app(tmp_path, database_url=db.url.render_as_string(hide_password=False))
    yield app
    close_app(app)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The one root."""
    return tmp_path / "photos"
