"""The OpenAPI document is valid and true: it lists what is served, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from tests.support.web import document_of
from web.reference import reference

ROOT = Path(__file__).parents[3]
CODE = re.compile(
    r'(?:code=|code = |ImageError\(\s*|Verdict\(|fail_job\([^"]*|set_notice\([^"]*|_pause\([^"]*)"([a-z_]+)"'
)

INTERNAL = {
    *("lease_lost", "bad_setting", "no_key", "weak_password", "not_migrated", "unknown_key", "missing_resource"),
    *("pandas_missing", "bad_erasure_log"),
    *("backup_exists", "bad_backup", "not_empty", "tool_missing", "tool_failed"),
}
"""Errors that a client of the API cannot meet."""
ELSEWHERE = {
    *("no_images", "device_memory", "source_away", "engines_cannot_start", "folders_unreadable"),
    *("no_answer", "no_server", "not_a_mien", "download_broken", "pandas_missing", "file_changed"),
}
"""Codes of a job's `error` and `notice`, and those that the client adds."""


def served(app: Flask) -> set[tuple[str, str]]:
    """(method, path) of the API and the health checks."""
    return {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") or rule.endpoint.startswith("health.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


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


def test_every_code_is_listed_and_every_listed_code_is_used(app: Flask) -> None:
    listed = set(document_of(app)["components"]["schemas"]["Problem"]["properties"]["code"]["enum"])
    sources = [source.read_text() for folder in ("web", "mien", "worker") for source in (ROOT / folder).rglob("*.py")]
    used = {code for source in sources for code in re.findall(CODE, source)}
    assert used - listed - INTERNAL - ELSEWHERE == set()
    named = "\n".join(source for source in sources if not source.startswith('"""Every ``code``'))
    assert {code for code in listed if f'"{code}"' not in named} == set()


def test_the_reference_is_current(app: Flask) -> None:
    page = (ROOT / "docs" / "api_reference.md").read_text()
    assert page == reference(document_of(app)), "run: python -m web.reference > docs/api_reference.md"


def test_the_guide_names_every_route_and_every_code(app: Flask) -> None:
    guide = (ROOT / "docs" / "api.md").read_text()
    missing = [f"{m.upper()} {p}" for m, p in sorted(served(app)) if f"`{m.upper()} {p}`" not in guide]
    assert missing == []
    codes = set()
    for folder in ("web", "mien", "worker"):
        for source in (ROOT / folder).rglob("*.py"):
            codes |= set(re.findall(CODE, source.read_text()))
    undocumented = {code for code in codes - INTERNAL if f"`{code}`" not in guide}
    assert undocumented == set()
