"""The body of a form with files, made while it is sent: of whatever size, it is never in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote

from mien.errors import UnprocessableError
from mien.paths import path_text

BLOCK = 1 << 18


@dataclass(frozen=True)
class Sending:
    """One image to send: ``path`` is its name on the server; ``content`` its bytes, or what opens a file of them."""

    path: bytes
    content: bytes | Callable[[], IO[bytes]]
    size: int


class FormBody:
    """A ``multipart/form-data`` body for :mod:`requests`: its length is known, its bytes come when they are read."""

    def __init__(self, images: Sequence[Sending], job: bytes | None = None) -> None:
        self._boundary = secrets.token_hex(16)
        self._pieces: list[tuple[bytes, Sending | None]] = []
        if job is not None:
            self._pieces.append((self._head(b'name="job"', b"Content-Type: application/json"), None))
            self._pieces.append((job + b"\r\n", None))
        for image in images:
            # the exact path goes percent-encoded in a header of its own: a file name in a form cannot hold every byte
            exact = b"Mien-Path: " + quote(image.path, safe="/").encode()
            self._pieces += [(self._head(b'name="images"; filename="image"', exact), image), (b"\r\n", None)]
        self._pieces.append((f"--{self._boundary}--\r\n".encode(), None))
        self._blocks = self._generate()
        self._ahead = b""

    @property
    def content_type(self) -> str:
        """For the header."""
        return f"multipart/form-data; boundary={self._boundary}"

    def __len__(self) -> int:
        return sum(len(head) + (image.size if image else 0) for head, image in self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            UnprocessableError: ``file_changed``, a file is not as long as it was.
        """
        if not self._ahead:
            self._ahead = next(self._blocks, b"")
        if size < 0:
            size = len(self._ahead)
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def _head(self, disposition: bytes, header: bytes) -> bytes:
        return (
            f"--{self._boundary}\r\n".encode()
            + b"Content-Disposition: form-data; " + disposition + b"\r\n" + header + b"\r\n\r\n"
        )  # fmt: skip

    def _generate(self) -> Iterator[bytes]:
        for head, image in self._pieces:
            yield head
            if image is not None:
                yield from _content(image)


def _content(image: Sending) -> Iterator[bytes]:
    if isinstance(image.content, bytes):
        if image.content:  # an empty block would be taken for the end
            yield image.content
        return
    left = image.size
    with image.content() as file:
        while left and (block := file.read(min(BLOCK, left))):
            left -= len(block)
            yield block
        if left or file.read(1):
            raise UnprocessableError(f"{path_text(image.path)} was changed while it was sent.", code="file_changed")
