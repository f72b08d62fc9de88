"""Who is asking: an API key, the local token, a signed-in browser, or anyone on this machine while Mien is open.

Beyond loopback every request but a few needs a key. On loopback Mien is open as long as no key exists, so that
``mien up`` works at once; with the first key it closes, but for the local token, which only this user's files hold.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote, urlsplit

from flask import Flask, Response, g, redirect, request, session, url_for

from mien.database import Database
from mien.errors import ForbiddenError, SettingsError, UnauthorizedError
from mien.keys import AS_SET, LOCAL_OWNER, KeyInfo, Limits, allows, any_key, authenticate, open_key
from mien.local_token import is_local_token
from mien.settings import PLACEHOLDERS, Settings
from mien.states import Scope
from web import sessions
from web.problems import wants_page
from web.security import SAFE_METHODS
from web.services import services

ALWAYS_OPEN = frozenset({"health.healthz", "static", "pages.sign_in", "pages.sign_in_submit"})
FOR_READERS = frozenset({"pages.sign_out"})
"""What changes nothing of a job, though it is no GET."""
METRICS = "metrics.metrics"
"""What a key of scope ``metrics`` opens, and nothing else."""
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

    @property
    def reach(self) -> str | None:
        """Whose jobs they may open by their id: their owner's; None, anybody's, for an admin."""
        return None if self.scope == "admin" else self.owner


def install(app: Flask, settings: Settings) -> None:
    """Let ``app`` know its callers."""
    sessions.install(app, settings)

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


def owner_asked(owner: str | None) -> str:
    """Whose jobs are listed: the caller's, or those of an owner that an admin names.

    Raises:
        ForbiddenError: ``scope_needed``.
    """
    if owner is None or owner == caller().owner:
        return caller().owner
    require_scope("admin")
    return owner


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
    if (found := _signed_in(settings, db)) is not None:
        return found
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
    return None if key is None else _of_key(key)


def _signed_in(settings: Settings, db: Database) -> Caller | None:
    """Whom this browser's cookie stands for, as long as the key opens and the session lasts."""
    key_id = sessions.key_of_session()
    if key_id is not None and (key := open_key(db, key_id)) is not None:
        return _of_key(key, signed_in=True)
    if sessions.is_local_session(settings) and is_local_request(settings):
        return Caller(LOCAL_OWNER, any_folder=True, signed_in=True)
    return None


def _of_key(key: KeyInfo, *, signed_in: bool = False) -> Caller:
    return Caller(key.owner, scope=key.scope, key_id=key.id, limits=key.limits, signed_in=signed_in)


def is_local_request(settings: Settings) -> bool:
    """Whether this request comes straight from this machine: not from afar, nor through a proxy that stands here."""
    if not settings.is_loopback or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False


def require_secrets_beyond_loopback(settings: Settings, db: Database) -> None:
    """Refuse to serve the world while nobody could prove who they are, or the database's password is one of the first
    that are tried.

    Raises:
        SettingsError: there is no API key (``no_key``), or the password is a default one (``weak_password``).
    """
    if settings.is_loopback:
        return
    if not any_key(db):
        raise SettingsError(
            f"MIEN_HOST is {settings.host}, which others can reach, but there is no API key. Set "
            "MIEN_BOOTSTRAP_KEY and run `mien migrate`, or run `mien keys create NAME`; or listen on 127.0.0.1.",
            code="no_key",
        )
    for name, url in (("MIEN_DATABASE_URL", settings.database_url), ("MIEN_BROKER_URL", settings.broker_url)):
        if is_default_password(url):
            raise SettingsError(
                f"{name}: its password is one of the first that are tried. Set another one there and in the server "
                "(`openssl rand -hex 24` makes one).",
                code="weak_password",
            )


def is_default_password(url: str) -> bool:
    """Whether the address holds a password that stands in every list: short, the user's name, or a usual word."""
    try:
        parts = urlsplit(url)
        password = unquote(parts.password or "")
    except ValueError:
        return False
    return bool(password) and (
        len(password) < 8 or password == parts.username or bool(re.search(PLACEHOLDERS, password, re.IGNORECASE))
    )
