"""One id per request: in the answer's header, in every problem and in the log, so that a report can be traced."""

from __future__ import annotations

import re
import secrets

from flask import Response, g, request

HEADER = "X-Request-ID"
_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id() -> str:
    """The id of this request: the one its sender gave, where it is harmless, else a new one."""
    if "request_id" not in g:
        given = request.headers.get(HEADER, "")
        g.request_id = given if _ACCEPTED.fullmatch(given) else secrets.token_hex(8)
    return str(g.request_id)


def add_request_id(answer: Response) -> Response:
    """Put the id into the answer."""
    answer.headers[HEADER] = request_id()
    return answer
