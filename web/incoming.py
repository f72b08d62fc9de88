"""The body of an upload: bounded, patient only so long, read by few enough threads that others find one free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Response, after_this_request, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from mien.errors import InvalidRequestError, TooLargeError, UnavailableError
from mien.settings import Settings
from mien.uploads import check_space
from web.services import services

DRAIN_BYTES = 32 << 20
DRAIN_BYTES_BUSY = 1 << 20
"""A refused body is read on so far, for clients that listen only when they have sent all of it."""


class Body:
    """The bytes of the request as they arrive."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.ended = False
        self._came = 0

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, none at the end.

        Raises:
            InvalidRequestError: ``upload_broken``: the client has left, or fell silent.
            TooLargeError: more than MIEN_MAX_UPLOAD_REQUEST_BYTES.
        """
        try:
            data = request.stream.read(size)
        except RequestEntityTooLarge:
            self.ended = True
            raise self._too_large() from None
        except (ClientDisconnected, OSError):
            self.ended = True
            raise _broken() from None
        self._came += len(data)
        self.ended = not data
        # a server that ends the stream by itself ends it also where the client has left
        if self.ended and size and self._came < (request.content_length or 0):
            raise _broken()
        return bytes(data)

    def drain(self, left: int) -> None:
        """Read on, not too far, so that the client gets to hear the answer."""
        while left > 0 and not self.ended:
            try:
                left -= len(self.read(1 << 16))
            except (InvalidRequestError, TooLargeError):
                return

    def _too_large(self) -> TooLargeError:
        limit = self._settings.max_upload_request_bytes
        came = f"; this one has {request.content_length:,}" if request.content_length else ""
        return TooLargeError(
            f"One upload request may have {limit:,} bytes (MIEN_MAX_UPLOAD_REQUEST_BYTES){came}. Send several.",
            code="too_large",
        )


def _broken() -> InvalidRequestError:
    return InvalidRequestError(
        "The body broke off before its end. What arrived whole is kept in a draft; send the rest.", code="upload_broken"
    )


@contextmanager
def incoming() -> Iterator[Body]:
    """The body of this request, as a context that takes the pains of a refusal upon itself.

    Raises:
        UnavailableError: ``busy``, as many uploads are arriving as may at once.
        TooLargeError, NoSpaceError: by the length that the client announces.
    """
    parts = services()
    request.max_content_length = parts.settings.max_upload_request_bytes
    body = Body(parts.settings)
    _be_patient(parts.settings.upload_timeout_s)
    with parts.uploading.place() as got:
        try:
            if not got:
                raise UnavailableError(
                    "As many uploads are arriving as this Mien takes at once; try again in a moment.", code="busy"
                )
            check_space(parts.settings, request.content_length or 0)
            yield body
        except BaseException:
            body.drain(DRAIN_BYTES if got else DRAIN_BYTES_BUSY)
            if not body.ended:
                after_this_request(_hang_up)
            raise


def _hang_up(answer: Response) -> Response:
    answer.headers["Connection"] = "close"  # rather than to read the rest of what is refused
    return answer


def _be_patient(seconds: float) -> None:
    """A client that falls silent for so long has left (gunicorn itself would wait for ever)."""
    socket = request.environ.get("gunicorn.socket")
    if socket is not None:
        socket.settimeout(seconds)
