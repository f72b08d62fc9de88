"""One attempt to deliver a webhook: a bounded POST to a checked address, no redirect followed, no answer kept."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mien import __version__
from mien.webhook_addresses import AddressRefusedError, resolve
from mien.webhook_signature import signature_header

GONE = 410


@dataclass(frozen=True)
class Sent:
    """What came of an attempt: the receiver's status, or the reason why there is none."""

    status: int | None
    error: str | None

    @property
    def ok(self) -> bool:
        """Whether the receiver took it."""
        return self.error is None


def body_of(payload: Mapping[str, Any]) -> bytes:
    """The body that is signed and sent."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def send(
    url: str,
    payload: Mapping[str, Any],
    *,
    message_id: str,
    timestamp: int,
    secrets: Sequence[str],
    allowed: Sequence[str],
    timeout_s: float,
) -> Sent:
    """POST a payload, signed with every secret given, within ``timeout_s`` altogether.

    ``timestamp``: seconds since 1970, by the database's clock. ``allowed``: networks beyond the public ones.
    """
    body = body_of(payload)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"Mien/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature_header(secrets, message_id, timestamp, body),
    }
    try:
        address = resolve(url, allowed)
        status = _post(url, address, body, headers, timeout_s)
    except AddressRefusedError as error:
        return Sent(None, f"Not sent: {error}.")
    except TimeoutError:
        return Sent(None, f"No answer within {timeout_s:g} s.")
    except (OSError, http.client.HTTPException) as error:
        return Sent(None, f"The connection failed: {_reason(error)}.")
    if 200 <= status < 300:
        return Sent(status, None)
    hint = "; redirects are not followed, give the final address" if 300 <= status < 400 else ""
    return Sent(status, f"The receiver answered {status}{hint}.")


def _post(url: str, address: tuple[str, int], body: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
    parts = urlsplit(url)
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    connection = _Pinned(parts.hostname or "", address, tls=parts.scheme == "https", timeout_s=timeout_s)
    late = threading.Event()

    def hang_up() -> None:
        # a socket's own timeout begins anew with every byte that trickles in
        late.set()
        connection.cut()

    clock = threading.Timer(timeout_s, hang_up)
    clock.daemon = True
    clock.start()
    try:
        connection.request("POST", target, body=body, headers={"Host": parts.netloc, **headers})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        if late.is_set():
            raise TimeoutError from error
        raise
    finally:
        clock.cancel()
        connection.close()  # whatever the receiver says in its body is not read
    return status


class _Pinned(http.client.HTTPConnection):
    """A connection to one address, whatever the name resolves to by now; the certificate has to be the name's."""

    def __init__(self, host: str, address: tuple[str, int], *, tls: bool, timeout_s: float) -> None:
        super().__init__(host, address[1], timeout=timeout_s)
        self._address = address
        self._tls = tls
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Called by http.client."""
        plain = socket.create_connection(self._address, timeout=self._timeout_s)
        self.sock = plain
        if self._tls:
            self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)

    def cut(self) -> None:
        """End whatever is under way, from another thread."""
        with suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
