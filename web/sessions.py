"""Sign-in cookies: signed, short-lived, without the key itself; and the secret that signs them."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from flask import Flask, Request, request, session
from flask.sessions import SecureCookieSessionInterface

from mien.errors import SettingsError
from mien.local_token import read_or_make_token
from mien.settings import Settings

COOKIE = "mien"
WHO = "who"
SECRET_BYTES = 32


def install(app: Flask, settings: Settings) -> None:
    """Let ``app`` sign people in."""
    app.config.update(
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        PERMANENT_SESSION_LIFETIME=dt.timedelta(seconds=settings.session_s),
        SECRET_KEY=session_secret(settings.data_dir),
    )
    app.session_interface = _SessionInterface()


def begin(settings: Settings, key_id: int | None) -> None:
    """Sign in by this key, or (None) by the local token. Whatever session there was before ends."""
    session.clear()
    session[WHO] = _local_mark(settings) if key_id is None else key_id


def key_of_session() -> int | None:
    """The id of the key by which this browser signed in, if it did by one."""
    who = session.get(WHO)
    return who if type(who) is int else None


def is_local_session(settings: Settings) -> bool:
    """Whether this browser signed in by the local token that holds still."""
    who = session.get(WHO)
    return isinstance(who, str) and hmac.compare_digest(who.encode(), _local_mark(settings).encode())


def _local_mark(settings: Settings) -> str:
    """What stands for the local token in a cookie: another token makes it void."""
    return hmac.new(
        session_secret(settings.data_dir), read_or_make_token(settings.data_dir).encode(), "sha256"
    ).hexdigest()


def session_secret(data_dir: Path) -> bytes:
    """The secret that signs sign-in cookies, from the data folder; made (readable by its owner alone) when missing.

    Raises:
        SettingsError: it is damaged, weak, or open to others.
    """
    path = data_dir / "session.key"
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        except OSError:
            temporary.rename(path)  # a file system without links; whoever was first signs in once more
        finally:
            temporary.unlink(missing_ok=True)
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        secret = file.read()
    if stat.S_IMODE(mode) & 0o077:
        raise SettingsError(f"{path} is open to others, who could sign in as anybody: delete it, a new one is made.")
    if len(secret) < SECRET_BYTES or len(set(secret)) < SECRET_BYTES // 4:
        raise SettingsError(f"{path} is damaged; delete it (browsers will have to sign in again).")
    return secret


class _SessionInterface(SecureCookieSessionInterface):
    """Flask's signed cookie, ``Secure`` whenever the request came by HTTPS (also through a proxy).

    There its name begins with ``__Host-``: browsers then take it from this very host only, never from a neighbour.
    """

    digest_method = staticmethod(hashlib.sha256)

    def get_cookie_secure(self, app: Flask) -> bool:
        """Called by Flask."""
        return is_https(request)

    def get_cookie_name(self, app: Flask) -> str:
        """Called by Flask."""
        return f"__Host-{COOKIE}" if is_https(request) else COOKIE


def is_https(incoming: Request) -> bool:
    """Whether the browser's side of the connection is encrypted. A false claim only makes the cookie stricter."""
    return incoming.is_secure or incoming.headers.get("X-Forwarded-Proto", "").lower() == "https"
