"""JSON bodies read strictly: what a database could not store is refused at the door, with the reason."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from flask import Request, request
from flask.json.provider import DefaultJSONProvider

from mien.errors import InvalidRequestError
from web.problems import MediaTypeError

MAX_JSON_BYTES = 1 << 20
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class StrictJson(DefaultJSONProvider):
    """RFC 8259 to the letter: no NaN or Infinity, no number beyond a double, no half of a surrogate pair, no NUL."""

    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse.

        Raises:
            ValueError: with a sentence that says what is wrong.
        """
        try:
            value = json.loads(s, parse_constant=_refuse_constant, parse_float=_finite, **kwargs)
            _refuse_unstorable(value)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        return value


class JsonRequest(Request):
    """A request whose broken JSON is an error of ours, in the same words everywhere."""

    def on_json_loading_failed(self, e: ValueError | None) -> NoReturn:
        """Called by Flask."""
        if e is None:
            raise MediaTypeError("The body has to be JSON: send it with `Content-Type: application/json`.")
        raise InvalidRequestError(f"The body is not valid JSON: {e}.", code="bad_json") from None


def require_json() -> None:
    """Read the body of this request as JSON, before any model looks at it.

    Raises:
        MediaTypeError: another content type.
        InvalidRequestError: ``bad_json``.
        RequestEntityTooLarge: more than a MiB.
    """
    request.max_content_length = MAX_JSON_BYTES
    request.get_json()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _refuse_unstorable(value: object) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a NUL character (\\u0000) cannot be stored")
        if _LONE_SURROGATE.search(value):
            raise ValueError("half of a surrogate pair (\\ud800 to \\udfff) is no character")
    elif isinstance(value, dict):
        for name, item in value.items():
            _refuse_unstorable(name)
            _refuse_unstorable(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_unstorable(item)
