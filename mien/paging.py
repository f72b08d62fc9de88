"""Cursor paging: opaque cursors that say what they belong to, so that one from elsewhere is refused."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Generic, TypeVar

from mien.errors import InvalidRequestError

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page: its items, the cursor to go on from, and whether more are there now."""

    items: list[T]
    next: str | None
    has_more: bool


def encode_cursor(scope: str, *position: int) -> str:
    """A cursor for ``position`` within ``scope`` (a job's id, a list's name)."""
    text = json.dumps([scope, *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, scope: str, length: int) -> tuple[int, ...]:
    """The position in a cursor made for ``scope``.

    Raises:
        InvalidRequestError: ``bad_cursor`` or ``cursor_of_another_job``.
    """
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        found, position = parts[0], tuple(parts[1:])
    except (binascii.Error, ValueError, IndexError, TypeError, KeyError):
        raise _bad_cursor() from None
    if found != scope and isinstance(found, str):
        raise InvalidRequestError(
            "The cursor in `after` was given by another list or job; begin without one.",
            code="cursor_of_another_job",
            field="after",
        )
    if len(position) != length or not all(type(p) is int and 0 <= p < 2**62 for p in position):
        raise _bad_cursor()
    return position


def _bad_cursor() -> InvalidRequestError:
    return InvalidRequestError(
        "The cursor in `after` is not one that Mien gave; take `next` of an earlier page, or begin without one.",
        code="bad_cursor",
        field="after",
    )
