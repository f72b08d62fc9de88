"""A form with files, read as it arrives: part by part, each as a stream, never more than a block of it in memory.

Werkzeug's decoder finds the boundaries; its form parser would put every file on the disk before a view sees the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData, Preamble

from mien.archive_stream import Reader
from mien.errors import InvalidRequestError, TooLargeError

PATH_HEADER = "Mien-Path"
"""A header of a part: its path percent-encoded, for names that a form cannot carry."""
BLOCK = 1 << 16
MAX_HEADERS = 1 << 14


class Part:
    """One part of a form. ``path``: the client's name for its file, None for a plain field."""

    def __init__(self, form: Form, event: Field | File) -> None:
        self._form = form
        self._buffer = b""
        self._more = True
        self.name = event.name or ""
        self.path = _path_of(event)

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` of the part's next bytes, none at its end.

        Raises:
            InvalidRequestError: ``bad_form``, and whatever the reader beneath raises.
        """
        while not self._buffer and self._more:
            event = self._form.next_event()
            if not isinstance(event, Data):
                bad_form("a part in it has no end")
            self._buffer, self._more = bytes(event.data), event.more_data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def text(self, limit: int) -> bytes:
        """All of the part, at most ``limit`` bytes.

        Raises:
            TooLargeError: it is longer.
        """
        found = b""
        while data := self.read(BLOCK):
            found += data
            if len(found) > limit:
                raise TooLargeError(f"The part `{self.name}` has more than {limit:,} bytes.")
        return found


class Form:
    """A ``multipart/form-data`` body.

    Raises:
        InvalidRequestError: ``bad_form``.
    """

    def __init__(self, reader: Reader, boundary: str | None) -> None:
        if not boundary or len(boundary) > 200 or not boundary.isascii():
            bad_form("its Content-Type names no boundary")
        self._reader = reader
        self._decoder = MultipartDecoder(boundary.encode(), max_form_memory_size=2 * BLOCK + MAX_HEADERS)

    def parts(self) -> Iterator[Part]:
        """The parts in their order; what is left unread of one is passed over.

        Raises:
            InvalidRequestError: ``bad_form``: it is no form, or ends too early.
        """
        while True:
            event = self.next_event()
            if isinstance(event, Epilogue):
                return
            if isinstance(event, Field | File):
                part = Part(self, event)
                yield part
                while part.read(BLOCK):
                    pass
            elif not isinstance(event, Preamble):
                bad_form("it is out of order")

    def next_event(self) -> object:
        """For :class:`Part`: what the decoder finds next."""
        try:
            while isinstance(event := self._decoder.next_event(), NeedData):
                self._decoder.receive_data(self._reader.read(BLOCK) or None)
        except (ValueError, AttributeError):
            # a header that is no UTF-8 or no header, or the end of the body in the middle of the form
            bad_form("it ends too early, or a header in it cannot be read (names have to be UTF-8)")
        except RequestEntityTooLarge:
            bad_form("a header in it is too long")
        return event


def _path_of(event: Field | File) -> bytes | None:
    """The path in the part's own header, else the file name as browsers and curl write it (WHATWG: %0A, %0D, %22)."""
    exact = event.headers.get(PATH_HEADER)
    if exact is not None:
        return unquote_to_bytes(exact)
    if not isinstance(event, File):
        return None
    return event.filename.replace("%0D", "\r").replace("%0A", "\n").encode("utf-8", "surrogatepass")


def bad_form(why: str) -> NoReturn:
    """Refuse the body.

    Raises:
        InvalidRequestError: always.
    """
    raise InvalidRequestError(f"The body is not a whole multipart/form-data form: {why}.", code="bad_form")
