"""The OpenAPI document is valid and true: it lists what is served, and nothing else."""

from __future__ import annotations

import re

import jsonschema
import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from tests.support.web import document_of


def served(app: Flask) -> set[tuple[str, str]]:
    """(method, path) of the API and the health checks."""
    return {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") or rule.endpoint.startswith("health.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


@pytest.mark.long
def test_it_is_a_valid_document(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_it_lists_what_is_served_and_nothing_else(app: Flask) -> None:
    document = document_of(app)
    listed = {(method, path) for path, operations in document["paths"].items() for method in operations}
    assert listed == served(app)


def test_every_operation_is_told_fully(app: Flask) -> None:
    seen = set()
    for path, operations in document_of(app)["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"].endswith("."), where
            assert operation["operationId"] not in seen, where
            seen.add(operation["operationId"])
            named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), where
            assert all("description" in p for p in operation.get("parameters", [])), where
            assert "400" in operation["responses"], where
            if path != "/healthz":
                assert operation["security"] == [{"key": []}, {}], where
                assert {"401", "503"} <= set(operation["responses"]), where
            if method in ("post", "delete"):
                assert "403" in operation["responses"], where
            for status, answer in operation["responses"].items():
                if status.startswith(("4", "5")):
                    assert list(answer["content"]) == ["application/problem+json"], (where, status)


def test_every_json_body_has_an_example_that_fits(app: Flask) -> None:
    document = document_of(app)
    components = {"components": document["components"]}
    bodies = [
        (f"{method} {path}", facts)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for holder in (operation.get("requestBody", {}), *operation["responses"].values())
        for kind, facts in holder.get("content", {}).items()
        if kind.endswith("json") and not path.endswith("/provenance")
    ]
    assert len(bodies) > 100
    for where, facts in bodies:
        assert "example" in facts, where
        jsonschema.Draft202012Validator(facts["schema"] | components).validate(facts["example"])
