"""Who is asking: an API key, the local token, a signed-in browser, or anyone on this machine while Mien is open.

Beyond loopback every request but a few needs a key. On loopback Mien is open as long as no key exists, so that
``mien up`` works at once; with the first key it closes, but for the local token, which only this user's files hold.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from flask import Flask, Request, Response, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface

from mien.database import Database
from mien.errors import ForbiddenError, SettingsError, UnauthorizedError
from mien.keys import AS_SET, LOCAL_OWNER, Limits, Scope, allows, any_key, authenticate
from mien.local_token import is_local_token
from mien.settings import Settings
from web.problems import wants_page
from web.security import SAFE_METHODS
from web.services import services

ALWAYS_OPEN = frozenset({"health.healthz", "static", "pages.sign_in", "pages.sign_in_submit"})
FOR_READERS = frozenset({"pages.sign_out"})
"""What changes nothing of a job, though it is no GET."""
METRICS = "metrics.metrics"
"""What a key of scope ``metrics`` opens, and nothing else."""
SESSION_KEY = "key"
SECRET_BYTES = 32
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


@dataclass(frozen=True)
class Caller:
    """Who asks, and what they may do.

    ``any_folder``: may name folders outside the roots. ``signed_in``: by the page's form. ``key_id``: None for whoever
    needs no key on this machine.
    """

    owner: str
    any_folder: bool = False
    signed_in: bool = False
    scope: Scope = "admin"
    key_id: int | None = None
    limits: Limits = AS_SET


def install(app: Flask, settings: Settings) -> None:
    """Let ``app`` know its callers."""
    app.config.update(
        SESSION_COOKIE_NAME="mien",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SECRET_KEY=session_secret(settings.data_dir),
    )
    app.session_interface = _SessionInterface()

    @app.before_request
    def _identify() -> Response | None:
        if request.endpoint in ALWAYS_OPEN:
            return None
        try:
            g.caller = identify(settings, services().db)
            require_scope(_needed())
        except UnauthorizedError:
            if wants_page() and request.method == "GET":
                session.clear()
                return cast(Response, redirect(url_for("pages.sign_in", next=request.full_path.rstrip("?")), 303))
            raise
        return None


def _needed() -> Scope:
    """What this request needs at least: whatever is no reading changes something, unless somebody says otherwise."""
    if request.endpoint == METRICS:
        return "metrics"
    return "read" if request.method in SAFE_METHODS or request.endpoint in FOR_READERS else "submit"


def caller() -> Caller:
    """Who asks this request."""
    return cast(Caller, g.caller)


def require_scope(needed: Scope) -> None:
    """Refuse a caller whose key opens less than that.

    Raises:
        ForbiddenError: ``scope_needed``.
    """
    if not allows(caller().scope, needed):
        raise ForbiddenError(
            f"This key may only {caller().scope}; one made by `mien keys create NAME --scope {needed}` may do this.",
            code="scope_needed",
        )


def identify(settings: Settings, db: Database) -> Caller:
    """Find out who asks.

    Raises:
        UnauthorizedError: ``key_needed`` without a key, ``bad_key`` with one that does not open.
    """
    header = request.headers.get("Authorization")
    if header is not None:
        scheme, _, secret = header.partition(" ")
        found = caller_of(secret.strip(), settings, db) if scheme.lower() == "bearer" else None
        if found is None:
            raise UnauthorizedError(
                "This key does not open here: it was revoked, or never given. Send `Authorization: Bearer KEY`.",
                code="bad_key",
                field="Authorization",
            )
        return found
    if SESSION_KEY in session and (found := caller_of(session[SESSION_KEY], settings, db)):
        return replace(found, signed_in=True)
    if is_local_request(settings) and not any_key(db):
        return Caller(LOCAL_OWNER)
    raise UnauthorizedError(
        "An API key is needed: send `Authorization: Bearer KEY`. `mien keys create NAME` makes one.", code="key_needed"
    )


def caller_of(secret: str, settings: Settings, db: Database) -> Caller | None:
    """Whom a secret stands for: the local token (on loopback only) or an API key."""
    if not secret:
        return None
    if is_local_request(settings) and is_local_token(settings.data_dir, secret):
        return Caller(LOCAL_OWNER, any_folder=True)
    key = authenticate(db, secret)
    return None if key is None else Caller(key.owner, scope=key.scope, key_id=key.id, limits=key.limits)


def is_local_request(settings: Settings) -> bool:
    """Whether this request comes straight from this machine: not from afar, nor through a proxy that stands here."""
    if not settings.is_loopback or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False


def require_key_beyond_loopback(settings: Settings, db: Database) -> None:
    """Refuse to serve the world while nobody could prove who they are.

    Raises:
        SettingsError: there is no API key.
    """
    if not settings.is_loopback and not any_key(db):
        raise SettingsError(
            f"MIEN_HOST is {settings.host}, which others can reach, but there is no API key. Set "
            "MIEN_BOOTSTRAP_KEY and run `mien migrate`, or run `mien keys create NAME`; or listen on 127.0.0.1.",
            code="no_key",
        )


def session_secret(data_dir: Path) -> bytes:
    """The secret that signs sign-in cookies, from the data folder; made (readable by its owner alone) when missing."""
    path = data_dir / "session.key"
    data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # written under another name and linked: whoever finds the file finds all of it, and the first one stays
        temporary = data_dir / f".session.key.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES:
        raise SettingsError(f"{path} is damaged; delete it (browsers will have to sign in again).")
    return secret


class _SessionInterface(SecureCookieSessionInterface):
    """Flask's signed cookie, ``Secure`` whenever the request came by HTTPS (also through a proxy)."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Called by Flask."""
        return is_https(request)


def is_https(incoming: Request) -> bool:
    """Whether the browser's side of the connection is encrypted. A false claim only makes the cookie stricter."""
    return incoming.is_secure or incoming.headers.get("X-Forwarded-Proto", "").lower() == "https"
