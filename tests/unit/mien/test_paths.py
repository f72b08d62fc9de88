"""Paths are bytes; people read a text beside them."""

from __future__ import annotations

from mien.paths import exact_name, path_text


def test_path_text_is_printable_and_tells_paths_apart() -> None:
    cases = {
        b"sub/a b.jpg": "sub/a b.jpg",
        b"new\nline\ttab.jpg": "new\\x0aline\\x09tab.jpg",
        b"\xff\xfe.jpg": "\\xff\\xfe.jpg",
        b"\\xff.jpg": "\\\\xff.jpg",
        "é😀.jpg".encode(): "é😀.jpg",
        "line\u2028end\x85.jpg".encode(): "line\\u2028end\\u0085.jpg",
    }
    assert {path: path_text(path) for path in cases} == cases


def test_exact_names_are_exact_where_they_can_be() -> None:
    assert exact_name(b"new\nline\\.jpg") == "new\nline\\.jpg"
    assert exact_name(b"\xff.jpg") == "\\xff.jpg"
