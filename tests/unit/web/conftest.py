"""A front end over SQLite, open on loopback, with a broker that does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mien.database import Database
from tests.support.web import make_app, parts_of


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return make_app(tmp_path)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def db(app: Flask) -> Database:
    return parts_of(app).db


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The one root."""
    return tmp_path / "photos"
