"""Signatures of webhooks as in Standard Webhooks: HMAC-SHA256 over ``id.timestamp.body``, Base64, with ``v1,`` before.

The scheme: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable

from mien.errors import UnprocessableError

PREFIX = "whsec_"
SECRET_BYTES = 32
LEAST_BYTES, MOST_BYTES = 24, 64
"""Bounds of the specification."""


def new_secret() -> str:
    """A signing secret of 256 random bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def secret_key(secret: str) -> bytes:
    """The bytes of a secret.

    Raises:
        UnprocessableError: ``bad_webhook_secret``.
    """
    try:
        key = _decoded(secret)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise UnprocessableError(
            f"A secret is `whsec_` and the Base64 of {LEAST_BYTES} to {MOST_BYTES} random bytes; leave it out to be "
            "given one.",
            code="bad_webhook_secret",
            field="secret",
        )
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of one message under one secret: ``v1,`` and the Base64 of the HMAC."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_decoded(secret), content, hashlib.sha256)).decode()


def _decoded(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def signature_header(valid_secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The header: one signature for each secret that is valid now, separated by spaces."""
    return " ".join(sign(secret, message_id, timestamp, body) for secret in valid_secrets)
