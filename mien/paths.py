"""Paths are bytes; people read a text beside them: exact where it can be, else escaped."""

from __future__ import annotations

import re

_SPECIAL = re.compile("[\\\\\x00-\x1f\x7f\u0085\u2028\u2029\udc80-\udcff]")


def path_text(path: bytes) -> str:
    """A printable text for ``path``, one line, different for different paths.

    Valid UTF-8 stays as it is; a backslash doubles, control characters and bytes that are not UTF-8 become ``\\xNN``,
    Unicode line separators ``\\uNNNN``.
    """
    return _SPECIAL.sub(_escaped, path.decode("utf-8", "surrogateescape"))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if match.group() == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def exact_name(path: bytes) -> str:
    """The name as it is where it is valid UTF-8 (newlines and all), else its :func:`path_text`."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return path_text(path)
