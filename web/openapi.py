"""The OpenAPI document: what flask-openapi gathers from the views, with our errors and headers told truly."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from flask_openapi.models.info import Info
from flask_openapi.openapi import OpenAPI
from pydantic import BaseModel

from mien import __version__
from web.codes import CODES
from web.examples import EXAMPLES, TEXTS, problem
from web.problems import PROBLEM_JSON

VERSION = "3.1.0"
SECURITY: list[dict[str, list[str]]] = [{"key": []}, {}]
DESCRIPTION = (
    "Reads the expression on every face in a folder of photographs: one row per face, never an image lost. "
    "Labels describe expressions as a model reads them, not what people feel."
)
REQUEST_ID = {
    "X-Request-ID": {
        "description": "The id of this request, also in the log.",
        "required": True,
        "schema": {"type": "string"},
    }
}
LIMITS = {
    "RateLimit-Policy": {
        "description": 'The requests this key may make: `"requests";q=600;w=60`; not there without a limit.',
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": 'The requests left, and the seconds until there are more: `"requests";r=42;t=17`.',
        "schema": {"type": "string"},
    },
}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before asking again.", "schema": {"type": "integer"}}}
ETAG = {
    "ETag": {
        "description": "Changes with the job; give it as If-None-Match.",
        "required": True,
        "schema": {"type": "string"},
    }
}
LOCATION = {"Location": {"description": "Address of the job.", "required": True, "schema": {"type": "string"}}}
COMPLETE = {
    "Mien-Complete": {
        "description": "Whether every image had its outcome when the export began.",
        "required": True,
        "schema": {"type": "string", "enum": ["true", "false"]},
    }
}
NEXT_PART = {
    "Mien-Next": {
        "description": "Give it as `after` for the part that follows; not there with the last part.",
        "schema": {"type": "string"},
    }
}

FORM = "multipart/form-data"
_IMAGES = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
    "description": "The files, in as many parts of this name; the filename of each is the image's path.",
}
SUBMIT_BODY: dict[str, Any] = {
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/JobRequest"}},
        FORM: {
            "schema": {
                "type": "object",
                "required": ["job", "images"],
                "properties": {"job": {"$ref": "#/components/schemas/JobRequest"}, "images": _IMAGES},
            },
            "encoding": {"job": {"contentType": "application/json"}, "images": {"contentType": "image/*"}},
        },
    }
}
"""What POST /jobs takes."""
_ARCHIVE = {"schema": {"type": "string", "format": "binary"}}
ARCHIVE_KINDS = (
    "application/zip",
    "application/x-zip-compressed",
    "application/x-tar",
    "application/gzip",
    "application/x-gzip",
)
UPLOAD_BODY: dict[str, Any] = {
    "content": {
        FORM: {
            "schema": {
                "type": "object",
                "properties": {
                    "images": _IMAGES,
                    "archive": {"type": "string", "format": "binary", "description": "A zip, a tar or a gzipped tar."},
                },
            },
            "encoding": {"images": {"contentType": "image/*"}},
        },
        **dict.fromkeys(ARCHIVE_KINDS, _ARCHIVE),
    }
}
"""What POST /jobs/{job_id}/images takes."""

_PROBLEMS = {
    400: "The request is not valid; `field` says where.",
    401: "An API key is needed.",
    403: "This is not allowed.",
    404: "There is no such job of yours.",
    409: "The state of the job does not allow this.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The request is understood, but cannot be carried out as it stands.",
    507: "The disk for uploads is full, or would be.",
    429: "This is more than the key may do just now.",
    503: "A part that Mien needs does not answer just now.",
    504: "No answer came in time.",
}


def json_answer(model: type[BaseModel], description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON answer for an operation's ``responses``."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {
        "description": description,
        "headers": REQUEST_ID | LIMITS | (headers or {}),
        "content": {"application/json": {"schema": reference}},
    }


def file_answer(description: str, *kinds: str) -> dict[str, Any]:
    """A streamed export for an operation's ``responses``."""
    return {
        "description": description,
        "headers": REQUEST_ID | LIMITS | COMPLETE | NEXT_PART,
        "content": {kind: {"schema": {"type": "string"}} for kind in kinds},
    }


def problems(*statuses: int) -> dict[str | int, Any]:
    """The errors of an operation that needs a key and the ledger; 400, 401, 403, 429 and 503 can always
    come (403: a key whose scope is less)."""
    return only_problems(400, 401, 403, 429, 503, *statuses)


def only_problems(*statuses: int) -> dict[str | int, Any]:
    """These errors as an operation's ``responses``."""
    return {
        status: {
            "description": _PROBLEMS[status],
            "headers": REQUEST_ID | LIMITS | (RETRY_AFTER if status in (429, 503, 504) else {}),
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(set(statuses))
    }


def info() -> Info:
    """Title and version."""
    return Info(title="Mien", version=__version__, description=DESCRIPTION)


def install(app: OpenAPI, models: list[type[BaseModel]]) -> None:
    """Serve the document at ``/openapi.json``; ``models`` are the answers that operations refer to."""
    app.openapi_version = VERSION
    document: dict[str, Any] = {}

    @app.get("/openapi.json", doc_ui=False)
    def openapi() -> Response:
        if not document:  # made when first asked for: it takes as long as all the rest of the start
            for model in models:
                _add_component(app.components_schemas, model)
            document.update(_finished(app.api_doc))
        return jsonify(document)


def _add_component(components: dict[str, Any], model: type[BaseModel]) -> None:
    schema = model.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    components.update(schema.pop("$defs", {}))
    components[model.__name__] = schema


def _finished(document: dict[str, Any]) -> dict[str, Any]:
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("deprecated", None)
            if "description" in operation:
                operation["description"] = operation["description"].replace("<br/>", "\n").strip()
            for kind, facts in operation.get("requestBody", {}).get("content", {}).items():
                _exemplify(kind, facts, None)
            for status, answer in operation["responses"].items():
                for kind, facts in answer.get("content", {}).items():
                    _exemplify(kind, facts, int(status))
    code = document["components"]["schemas"]["Problem"]["properties"]["code"]
    code["enum"] = sorted(CODES)
    code["description"] = "\n".join(f"- `{name}`: {CODES[name]}" for name in sorted(CODES))
    return document


def _exemplify(kind: str, facts: dict[str, Any], status: int | None) -> None:
    """Put an example beside a body's schema, where there is one for it."""
    name = facts["schema"].get("$ref", "").rpartition("/")[2]
    if kind == PROBLEM_JSON and status is not None:
        facts["example"] = problem(status)
    elif name in EXAMPLES:
        facts["example"] = EXAMPLES[name]
    elif kind in TEXTS:
        facts["example"] = TEXTS[kind]
