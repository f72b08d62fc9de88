"""Paths are bytes; people read an escaped text beside them. This module turns one into the other and back."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\\\")
_SPECIAL = re.compile("[\\\\\x00-\x1f\x7f\u0085\u2028\u2029\udc80-\udcff]")


def path_text(path: bytes) -> str:
    """A printable text for ``path``, one line, unique for each path and reversible by :func:`path_bytes`.

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


def path_bytes(text: str) -> bytes:
    """The path whose :func:`path_text` is ``text``."""
    parts: list[bytes] = []
    end = 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[end : match.start()].encode("utf-8", "surrogateescape"))
        byte, unicode, end = match.group(1), match.group(2), match.end()
        if byte:
            parts.append(bytes([int(byte, 16)]))
        elif unicode:
            parts.append(chr(int(unicode, 16)).encode())
        else:
            parts.append(b"\\")
    parts.append(text[end:].encode("utf-8", "surrogateescape"))
    return b"".join(parts)
