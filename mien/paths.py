"""Paths are bytes; people read an escaped text beside them. This module turns one into the other and back."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\\\")
_SEPARATORS = "\u2028\u2029\u0085"


def path_text(path: bytes) -> str:
    """A printable text for ``path``, one line, unique for each path and reversible by :func:`path_bytes`.

    Valid UTF-8 stays as it is; a backslash doubles, control characters and bytes that are not UTF-8 become ``\\xNN``,
    Unicode line separators ``\\uNNNN``.
    """
    text = path.decode("utf-8", "surrogateescape")
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character in _SEPARATORS:
        return f"\\u{code:04x}"
    return character


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
