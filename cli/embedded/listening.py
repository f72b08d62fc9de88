"""The socket of the front end: bound here, so that it stays ours while the front end is started again."""

from __future__ import annotations

import errno
import os
import socket

from mien.errors import UnavailableError


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UnavailableError: the sentence says whether host or port is wrong, and what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:  # a name that nobody knows, or IPv6 where there is none
        raise UnavailableError(f"MIEN_HOST {host!r} cannot be used ({error.strerror}). {_ADDRESSES}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise UnavailableError(_sentence(host, port, error)) from None
    return listener


_ADDRESSES = "Name an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 for everybody who can reach it."


def _sentence(host: str, port: int, error: OSError) -> str:
    reason = os.strerror(error.errno or 0)
    if error.errno == errno.EADDRNOTAVAIL:
        return f"MIEN_HOST {host!r} cannot be used ({reason}). {_ADDRESSES}"
    if error.errno == errno.EACCES:
        return f"Port {port} of {host} cannot be used ({reason}). Choose one from 1024 up in MIEN_PORT."
    return (
        f"Port {port} of {host} cannot be used ({reason}). Stop the program that has it, or choose another: "
        "MIEN_PORT=0 takes a free one."
    )
