"""Forms as a stream: whatever pieces they come in, and against the client that makes them."""

from __future__ import annotations

import io
import random

import pytest

from mien.errors import InvalidRequestError, TooLargeError, UnprocessableError
from mien.form_body import FormBody, Sending
from tests.support.uploads import BOUNDARY, form, part
from web.multipart import Form


class Trickle:
    """Gives as many bytes at once as the network happens to bring."""

    def __init__(self, data: bytes, seed: int) -> None:
        self._data, self._chance = io.BytesIO(data), random.Random(seed)

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._chance.choice([1, 2, 3, 50, 1000, 70_000])))


def parsed(body: bytes, seed: int = 0, boundary: str = BOUNDARY) -> list[tuple[str, bytes | None, bytes]]:
    found = []
    for piece in Form(Trickle(body, seed), boundary).parts():
        data = b""
        while more := piece.read(4096):
            data += more
        found.append((piece.name, piece.path, data))
    return found


NASTY = b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n--\r\r\n\n" * 3


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_any_size(seed: int) -> None:
    files = {"a.jpg": b"", "b/é 😀.jpg": NASTY, "c.jpg": random.Random(seed).randbytes(200_000) + b"\r\n"}
    assert parsed(form(files, {"n": 1}), seed) == [
        ("job", None, b'{"n": 1}'),
        *(("images", name.encode(), data) for name, data in files.items()),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_what_the_client_sends_is_what_arrives(seed: int) -> None:
    images = {b"caf\xe9 %22\n\\.jpg": NASTY, b"b.jpg": b"", b"c.jpg": random.Random(seed).randbytes(300_000)}
    body = FormBody([Sending(path, data, len(data)) for path, data in images.items()], b"{}")
    sent = b""
    while block := body.read(random.Random(seed).choice([100, 5000, 1 << 20])):
        sent += block
    assert len(sent) == len(body)
    boundary = body.content_type.partition("boundary=")[2]
    assert parsed(sent, seed, boundary)[1:] == [("images", path, data) for path, data in images.items()]


@pytest.mark.parametrize("told", [9, 11])
def test_a_file_that_changes_while_it_is_sent_breaks_the_request(told: int) -> None:
    body = FormBody([Sending(b"a.jpg", lambda: io.BytesIO(b"0123456789"), told)])
    with pytest.raises(UnprocessableError, match=r"a\.jpg was changed"):
        list(body)


def test_parts_that_are_not_read_are_passed_over() -> None:
    body = form({f"{number}.jpg": b"x" * 100_000 for number in range(5)})
    paths = [piece.path for piece in Form(Trickle(body, 1), BOUNDARY).parts()]
    assert paths == [b"%d.jpg" % number for number in range(5)]


def test_a_field_has_its_limit() -> None:
    (field,) = [piece.text(10) for piece in Form(Trickle(form([], {"n": 1}), 1), BOUNDARY).parts()]
    assert field == b'{"n": 1}'
    with pytest.raises(TooLargeError):
        [piece.text(7) for piece in Form(Trickle(form([], {"n": 1}), 1), BOUNDARY).parts()]


def test_wherever_it_is_cut_off_that_is_seen() -> None:
    body = form({"a.jpg": b"x" * 300, "b.jpg": b"y" * 300})
    for cut in range(0, len(body) - 4, 7):
        with pytest.raises(InvalidRequestError):
            parsed(body[:cut])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        f"--{BOUNDARY}\r\n\r\nno disposition\r\n--{BOUNDARY}--\r\n".encode(),
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=x; filename=\xe9\r\n\r\nx".encode("latin-1"),
        part("x", b"", X="y" * 300_000),
    ],
)
def test_what_is_no_form(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parsed(body)
    assert refused.value.code == "bad_form"
