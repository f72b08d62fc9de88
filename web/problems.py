"""Every error as ``application/problem+json`` (RFC 9457), or as a page where a browser asked for one. No traceback."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus

from flask import Flask, Response, make_response, render_template, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from mien.errors import (
    DeadlineError,
    InvalidRequestError,
    LimitError,
    MienError,
    SettingsError,
    UnauthorizedError,
    UnavailableError,
)
from mien.wire import Check, FieldProblem, Problem
from web.request_id import request_id

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 5
UNEXPECTED = "Something went wrong inside Mien. It is logged under this request's id; trying again may help."

_SENTENCES = {
    404: "There is nothing at this address; docs/api.md and /openapi.json list what there is.",
    405: "This address does not take {method}.",
    413: "The body is larger than this Mien takes (MIEN_MAX_REQUEST_BYTES; 1 MiB for JSON).",
    415: "The body has to be JSON: send it with `Content-Type: application/json`.",
}
_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    431: "headers_too_large",
}


class MediaTypeError(MienError):
    """The body is of a kind that cannot be read here."""

    code = "unsupported_media_type"
    status = 415
    title = "The body is of the wrong kind"


def install(app: Flask) -> None:
    """Answer every error of ``app`` as a problem."""
    app.register_error_handler(MienError, _on_mien_error)
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(Exception, _on_exception)


def on_invalid_request(error: ValidationError) -> Response:
    """The answer to a request whose body or query does not fit its model: the first defect, and all where several."""
    defects = [
        FieldProblem(field=_field(item["loc"], item["type"]), detail=item["msg"].removeprefix("Value error, "))
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    first = defects[0]
    detail = first.detail if first.field is None else f"`{first.field}`: {first.detail}"
    if len(defects) > 1:
        detail += f" ({len(defects) - 1} more in `errors`)"
    problem = InvalidRequestError(f"{detail}.", field=first.field)
    return respond(problem, defects if len(defects) > 1 else None)


def respond(
    error: MienError, defects: list[FieldProblem] | None = None, checks: dict[str, Check] | None = None
) -> Response:
    """``error`` as the answer to this request."""
    if wants_page():
        body = render_template("error.html", error=error, request_id=request_id())
        answer = make_response(body, error.status)
    else:
        answer = make_response(_json(error, defects, checks), error.status)
        answer.content_type = PROBLEM_JSON
    if isinstance(error, UnavailableError | DeadlineError):
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, LimitError):
        answer.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, UnauthorizedError):
        answer.headers["WWW-Authenticate"] = 'Bearer realm="mien"'
    return answer


def wants_page() -> bool:
    """Whether a person in a browser asked: everything outside the API, when HTML is what the client likes best."""
    if request.path.startswith("/api/") or request.path in ("/openapi.json", "/healthz", "/readyz"):
        return False
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def _json(error: MienError, defects: list[FieldProblem] | None, checks: dict[str, Check] | None) -> str:
    problem = Problem(
        type="about:blank",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id(),
        field=error.field,
        errors=defects,
        checks=checks,
    )
    # ASCII: a detail may quote a name that UTF-8 cannot hold
    return json.dumps(problem.model_dump(exclude_none=True))


def _on_mien_error(error: MienError) -> Response:
    if isinstance(error, SettingsError) or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s [%s]", request.method, request.path, error.detail, request_id())
    return respond(error)


def _on_http_exception(error: HTTPException) -> Response:
    if error.response is not None or error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return make_response(error.get_response())  # a redirect, or an answer made already
    status = error.code
    sentence = _SENTENCES.get(status, error.description or "").format(method=request.method)
    problem = MienError(sentence, code=_CODES.get(status, "bad_request"))
    problem.status = status
    problem.title = HTTPStatus(status).phrase
    answer = respond(problem)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value  # Allow of a 405
    return answer


def _on_exception(error: Exception) -> Response:
    log.error("%s %s failed [%s]", request.method, request.path, request_id(), exc_info=error)
    return respond(MienError(UNEXPECTED))


def _field(location: tuple[int | str, ...], kind: str) -> str | None:
    if kind.startswith("union_tag"):
        location = (*location, "type")
    if location[:1] == ("source",) and location[1:2] in (("folder",), ("upload",)):
        location = location[:1] + location[2:]  # the kind of source is no part of the body
    return ".".join(str(part) for part in location) or None
