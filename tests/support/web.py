"""A front end for tests: over a real, migrated ledger, with every answer held against the OpenAPI document."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from mien.models import Model, ModelStore
from mien.settings import Settings
from tests.support.ledger import LABELS, NOBODY
from tests.support.servers import migrated_ledger
from web.app import create_app
from web.services import EXTENSION, Services

UNDOCUMENTED = {405, 500}
"""Answers that any address can give, for a wrong method and for a fault of ours: not listed each time."""


def close_app(app: Flask) -> None:
    """Let go of its ledger: what its audit log has yet to write is written first, or a thread would ask for a database
    that is gone."""
    parts = parts_of(app)
    parts.trail.wait_until_written(5)
    parts.db.dispose()


def install_model(directory: Path, name: str = "tiny") -> Model:
    """A model folder that the front end can read; nothing here runs it."""
    source = directory.parent / f"source-{name}"
    source.mkdir(parents=True)
    (source / "config.json").write_text(json.dumps({"id2label": {str(i): label for i, label in enumerate(LABELS)}}))
    (source / "preprocessor_config.json").write_text("{}")
    (source / "model.onnx").write_bytes(name.encode())
    spec = {
        "format": 1,
        "name": name,
        "input": {
            "height": 70,
            "width": 70,
            "resize": "exact",
            "shortest_edge": None,
            "resample": "bicubic",
            "rescale": 1 / 255,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
        "crop": {"margin": 0.1, "grey": True},
        "temperature": 1.0,
        "onnx": {"fp32": "model.onnx"},
        "notes": "",
    }
    (source / "mien.json").write_text(json.dumps(spec))
    return ModelStore(directory).install(source)


def make_settings(folder: Path, **changes: Any) -> Settings:
    """Settings of a front end in ``folder``: a root ``photos``, one model, and a broker that does not answer."""
    data, photos = folder / "data", folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    data.mkdir(exist_ok=True)
    if not (data / "models").exists():
        install_model(data / "models")
    facts: dict[str, Any] = {"data_dir": data, "roots": (photos,), "broker_url": NOBODY, "model": "tiny"}
    return Settings(**(facts | changes))


def make_app(folder: Path, **changes: Any) -> Flask:
    """A front end over a migrated ledger: SQLite in ``folder``, or the one at ``database_url``."""
    settings = make_settings(folder, **changes)
    ledger = folder / "data" / "mien.sqlite3"
    if not settings.database_url and not ledger.exists():
        ledger.write_bytes(migrated_ledger())
    app = create_app(settings)
    app.test_client_class = CheckedClient
    return app


def parts_of(app: Flask) -> Services:
    """The parts that the views work with."""
    parts: Services = app.extensions[EXTENSION]
    return parts


class CheckedClient(FlaskClient):
    """Every answer has to be one that ``/openapi.json`` promises: its status, its kind, its shape to the last field."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """Called for each request."""
        answer = super().open(*args, **kwargs)
        check_answer(document_of(self.application), answer)
        return answer


_documents: dict[str, dict[str, Any]] = {}


def document_of(app: Flask) -> dict[str, Any]:
    """The OpenAPI document, which is the same for every application of one version."""
    if app.import_name not in _documents:
        with app.test_request_context():
            answer = app.make_response(app.view_functions["openapi"]())
        _documents[app.import_name] = answer.get_json()
    return _documents[app.import_name]


def check_answer(document: dict[str, Any], answer: TestResponse) -> None:
    """Fail unless ``answer`` is as the document says (addresses outside the document are not looked at)."""
    request = answer.request
    method = "get" if request.method == "HEAD" else request.method.lower()
    path = _documented_path(document, request.path, method)
    if path is None or answer.status_code in UNDOCUMENTED or method == "options":
        return
    operation = document["paths"][path].get(method)
    assert operation is not None, f"{request.method} {path} is not documented"
    promised = operation["responses"].get(str(answer.status_code))
    assert promised is not None, (
        f"{request.method} {path} gave an undocumented {answer.status_code}: {answer.text[:300]}"
    )
    for header, facts in promised.get("headers", {}).items():
        if facts.get("required"):
            assert header in answer.headers, f"{request.method} {path} {answer.status_code} lacks the header {header}"
    kinds = promised.get("content", {})
    if not kinds:
        assert answer.data == b""
        return
    assert answer.mimetype in kinds, f"{request.method} {path} gave {answer.mimetype}, promised are {list(kinds)}"
    if answer.mimetype.endswith("json") and request.method != "HEAD":
        schema = {**kinds[answer.mimetype]["schema"], "components": _strict(json.dumps(document["components"]))}
        jsonschema.Draft202012Validator(schema).validate(json.loads(answer.data))


def _documented_path(document: dict[str, Any], path: str, method: str) -> str | None:
    if method in document["paths"].get(path, ()):
        return path
    for template in document["paths"]:
        if re.fullmatch(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template)), path):
            return str(template)
    return None


@cache
def _strict(components: str) -> dict[str, Any]:
    """The schemas, with every field that is not documented forbidden."""
    found: dict[str, Any] = copy.deepcopy(json.loads(components))
    for schema in _objects(found):
        schema.setdefault("additionalProperties", False)
    return found


def _objects(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node:
            yield node
        for value in node.values():
            yield from _objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _objects(value)
