"""The page docs/api_reference.md out of the OpenAPI document: ``python -m web.reference > docs/api_reference.md``."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mien.database import Database
from mien.migrate import migrate
from mien.settings import Settings
from web.app import create_app

HEAD = """# The HTTP API, operation by operation

Generated from the OpenAPI document by `python -m web.reference > docs/api_reference.md`; a test fails when it is out of
date. [The guide](api.md) says what shapes cannot.
"""
_HTTP = ("get", "put", "post", "delete")


def document() -> dict[str, Any]:
    """The OpenAPI document, of a front end made for that."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), broker_url="redis://127.0.0.1:1/0")
        db = Database(settings.database)
        migrate(db)
        db.dispose()
        found: dict[str, Any] = create_app(settings).test_client().get("/openapi.json").get_json()
        return found


def reference(found: dict[str, Any]) -> str:
    """The document as a page of Markdown."""
    return "\n".join([HEAD, *_operations(found), *_schemas(found), *_codes(found)]).rstrip() + "\n"


def _operations(found: dict[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in found["paths"].items():
        for method in _HTTP:
            if method in operations:
                tag = (operations[method].get("tags") or ["other"])[0]
                by_tag.setdefault(tag, []).append((method, path, operations[method]))
    for tag, operations_of_tag in by_tag.items():
        yield f"## {tag.capitalize()}\n"
        for method, path, operation in operations_of_tag:
            yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    yield f"{operation['summary']}\n"
    if operation.get("description"):
        yield f"{operation['description']}\n"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "| parameter | in | type | meaning |\n| --- | --- | --- | --- |"
        for one in parameters:
            needed = ", required" if one.get("required") and one["in"] != "path" else ""
            yield f"| `{one['name']}` | {one['in']}{needed} | {_type(one['schema'])} | {_cell(one['description'])} |"
        yield ""
    for kind, facts in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body: `{kind}`, {_type(facts['schema'])}\n"
        yield from _example(facts)
    yield "| answer | body | meaning |\n| --- | --- | --- |"
    for status, answer in sorted(operation["responses"].items()):
        kinds = ", ".join(
            f"`{kind}`" + (f" {_type(facts['schema'])}" if "$ref" in facts["schema"] else "")
            for kind, facts in answer.get("content", {}).items()
        )
        yield f"| {status} | {kinds or '-'} | {_cell(answer['description'])} |"
    yield ""
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            for facts in answer.get("content", {}).values():
                yield from _example(facts)


def _example(facts: dict[str, Any]) -> Iterator[str]:
    if "example" not in facts:
        return
    example = facts["example"]
    text = example.rstrip() if isinstance(example, str) else json.dumps(example, ensure_ascii=False)
    if len(text) > 600 and not isinstance(example, str):
        text = f"{text[:600]} ..."
    yield f"```\n{text}\n```\n"


def _schemas(found: dict[str, Any]) -> Iterator[str]:
    yield "## Shapes\n"
    for name, schema in sorted(found["components"]["schemas"].items()):
        if "properties" not in schema:
            continue
        yield f"### {name}\n"
        if schema.get("description"):
            yield f"{schema['description']}\n"
        needed = set(schema.get("required", ()))
        yield "| field | type | meaning |\n| --- | --- | --- |"
        for field, facts in schema["properties"].items():
            meaning = "one of the codes below" if (name, field) == ("Problem", "code") else facts.get("description", "")
            kind = "string" if (name, field) == ("Problem", "code") else _type(facts)
            yield f"| `{field}`{'' if field in needed else ' (optional)'} | {kind} | {_cell(meaning)} |"
        yield ""


def _codes(found: dict[str, Any]) -> Iterator[str]:
    yield "## Codes of problems\n"
    yield str(found["components"]["schemas"]["Problem"]["properties"]["code"]["description"])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type(one) for one in schema[several])
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    kind = str(schema.get("type", "anything"))
    if values:
        kind = ", ".join(f"`{value}`" for value in values)
    elif kind == "array":
        kind = f"list of {_type(schema.get('items', {}))}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {_type(schema['additionalProperties'])}"
    elif "format" in schema:
        kind = f"{kind} ({schema['format']})"
    return kind


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference(document()))
