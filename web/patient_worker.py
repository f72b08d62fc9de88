"""Gunicorn's threaded worker, with threads for whole requests only: who sends headers slowly, or none, holds no thread.

Gunicorn hands a new connection to a thread at once, which then waits for its headers: sixteen connections that never
send the rest would take all of sixteen threads. Here the main thread looks at what has arrived without taking it
(MSG_PEEK), and a connection waits in the poller until its headers are complete. SO_RCVLOWAT keeps the poller quiet
until there is more than was looked at before.
"""

from __future__ import annotations

import selectors
import socket
import time
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

HEADERS_S = 10.0
"""Seconds a client has for its headers."""
MOST_HEADERS = 1 << 15
"""More than a request line and headers may have; a socket's buffer holds more by default."""
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """One process with threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._incomplete: dict[Any, float] = {}
        """Connections whose headers are still coming, and until when they may."""

    def enqueue_req(self, conn: Any) -> None:
        """Called by gunicorn, in the main thread, for each connection from which a request is expected."""
        read_ahead = conn.parser is not None and conn.parser.unreader.buf.getvalue()
        if read_ahead or self.cfg.is_ssl:
            super().enqueue_req(conn)
            return
        seen, is_over = _peek(conn.sock)
        if is_over or b"\r\n\r\n" in seen:
            conn.headers_until = None
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            conn.data_ready = True
            super().enqueue_req(conn)
        elif len(seen) >= MOST_HEADERS:
            self._refuse(conn, TOO_LARGE)
        else:
            self._wait(conn, len(seen))

    def notify(self) -> None:
        """Called by gunicorn about once a second: connections whose time is over are closed."""
        super().notify()
        now = time.monotonic()
        for conn, until in list(self._incomplete.items()):
            if now > until or not self.alive:
                self._forget(conn)
                self._refuse(conn)

    def _wait(self, conn: Any, seen: int) -> None:
        until = getattr(conn, "headers_until", None) or time.monotonic() + HEADERS_S
        conn.headers_until = until
        conn.sock.setblocking(False)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
        self._incomplete[conn] = until
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._more, conn))

    def _more(self, conn: Any, _socket: Any) -> None:
        self._forget(conn)
        self.enqueue_req(conn)

    def _forget(self, conn: Any) -> None:
        del self._incomplete[conn]
        self.poller.unregister(conn.sock)

    def _refuse(self, conn: Any, answer: bytes = b"") -> None:
        self.nr_conns -= 1
        try:
            if answer:
                conn.sock.send(answer)
        except OSError:
            pass  # it has left
        conn.close()


def _peek(connection: socket.socket) -> tuple[bytes, bool]:
    """What has arrived and was not taken; and whether no more can come."""
    connection.setblocking(False)
    try:
        seen = connection.recv(MOST_HEADERS, socket.MSG_PEEK)
    except BlockingIOError:
        return b"", False
    except OSError:
        return b"", True
    return seen, not seen
