"""What protects a browser and its user: response headers, the Host check, and the refusal of cross-site requests."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from flask import Flask, Response, request

from mien.errors import ForbiddenError, InvalidRequestError
from mien.settings import Settings

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
REPEATABLE = frozenset({("uploads.delete_images", "path")})
"""Query parameters that may be given several times, by endpoint."""
BODY_S = 60.0
"""Seconds within which a body that is no upload has to arrive whole."""
UPLOADS = frozenset({"uploads.upload", "uploads.upload_one"})
MAX_FORM_BYTES, MAX_FORM_PARTS = 1 << 20, 200
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def install(app: Flask, settings: Settings) -> None:
    """Check every request of ``app``, and put the headers on every answer."""
    allowed = frozenset(name.lower() for name in settings.allowed_hosts)
    # beyond loopback any name may lead here, unless the operator lists the names
    check_host = settings.is_loopback or bool(allowed)

    @app.before_request
    def _refuse_strange_requests() -> None:
        be_patient_so_long(settings.upload_timeout_s)
        if check_host:
            refuse_strange_host(allowed)
        if not request.path.startswith("/api/"):  # the pages' forms are small, and one of them needs no key
            request.max_content_length = min(MAX_FORM_BYTES, settings.max_request_bytes)
            request.max_form_memory_size, request.max_form_parts = MAX_FORM_BYTES, MAX_FORM_PARTS
        refuse_cross_site()
        refuse_unstorable_query()

    app.after_request(add_headers)

    @app.teardown_request
    def _end_timer(_error: BaseException | None) -> None:
        if (timer := request.environ.pop("mien.body_timer", None)) is not None:
            timer.cancel()


def be_patient_so_long(seconds: float) -> None:
    """A client that neither sends nor takes anything for so long has left: gunicorn itself would wait for ever."""
    connection = request.environ.get("gunicorn.socket")
    if connection is None:
        return
    connection.settimeout(seconds)
    is_form = request.mimetype == "multipart/form-data" and request.path.startswith("/api/")
    is_upload = is_form or request.endpoint in UPLOADS
    if request.method not in SAFE_METHODS and not is_upload:  # uploads never hold more than half of the threads
        # small bodies come at once, or the connection ends: byte by byte they would hold a thread for hours
        timer = threading.Timer(BODY_S, _stop_reading, (connection,))
        timer.daemon = True
        timer.start()
        request.environ["mien.body_timer"] = timer


def _stop_reading(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def add_headers(answer: Response) -> Response:
    """The protective headers; nothing is stored by browsers or proxies unless a view says so."""
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    if request.endpoint != "static":
        answer.headers.setdefault("Cache-Control", "no-store")
    return answer


def refuse_strange_host(allowed: frozenset[str]) -> None:
    """Refuse a Host that is not ours: a page elsewhere whose name was made to point here (DNS rebinding).

    Raises:
        InvalidRequestError: ``bad_host``.
    """
    name = host_name(request.host)
    if name not in LOOPBACK_NAMES and name not in allowed:
        raise InvalidRequestError(
            f"This Mien does not answer to the name {name!r}; add it to MIEN_ALLOWED_HOSTS, or use its own address.",
            code="bad_host",
            field="Host",
        )


def refuse_cross_site() -> None:
    """Refuse a changing request that a page of another site sent through the user's browser.

    Browsers say where a request comes from (Sec-Fetch-Site, and Origin where that is missing) and no page can change
    what they say. Other clients send neither and are no danger: they carry nobody's cookies.

    Raises:
        ForbiddenError: ``cross_site``.
    """
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:
        ours = origin is None or urlsplit(origin).netloc == request.host
    if not ours:
        raise ForbiddenError("A page of another site may not do this here.", code="cross_site")


def refuse_unstorable_query() -> None:
    """Refuse NUL in query values: no text in a PostgreSQL database can hold or match it.

    Raises:
        InvalidRequestError: ``invalid_request``, naming the parameter; also for one given twice.
    """
    for name, values in request.args.lists():
        if any("\0" in value for value in (name, *values)):
            raise InvalidRequestError(f"`{name}`: a NUL character cannot stand here.", field=name)
        if len(values) > 1 and (request.endpoint, name) not in REPEATABLE:
            raise InvalidRequestError(f"`{name}` is given {len(values)} times; once is enough.", field=name)


def host_name(host: str) -> str:
    """The name in a Host header, lower case, without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
