"""The local token: who can read it owns the data folder, and may name any folder of this machine for one job.

It is sent like an API key, ``Authorization: Bearer TOKEN``, by ``mien classify`` on the same machine.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from mien.errors import MienError

FILE_NAME = "local.token"
TOKEN_BYTES = 32
PREFIX = "mienlocal_"
"""Tells a token from an API key at a glance."""


class LocalTokenError(MienError):
    """The token's file cannot be trusted or read."""

    code = "bad_local_token"
    title = "The local token cannot be used"


def read_or_make_token(data_dir: Path) -> str:
    """The token of this data folder, made (mode 0600) if there is none yet; safe when several processes ask at once.

    Raises:
        LocalTokenError: the file belongs to somebody else, is open to others, is damaged, or cannot be written.
    """
    path = data_dir / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        return _read(path)
    except OSError as error:
        raise LocalTokenError(
            f"{path} cannot be used ({os.strerror(error.errno or 0)}). Check who owns the data folder."
        ) from None


def is_local_token(data_dir: Path, shown: str) -> bool:
    """Whether ``shown`` is the token of this data folder, compared in constant time."""
    return shown.startswith(PREFIX) and hmac.compare_digest(shown.encode(), read_or_make_token(data_dir).encode())


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{FILE_NAME}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(PREFIX + secrets.token_urlsafe(TOKEN_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(unfinished, path)  # unlike rename, it fails if another process was first: then that one's token holds
    except FileExistsError:
        pass
    except OSError:
        unfinished.rename(path)  # a file system without links; whoever was first is at worst asked once more
    finally:
        unfinished.unlink(missing_ok=True)


def _read(path: Path) -> str:
    with path.open() as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
            raise LocalTokenError(
                f"{path} must belong to you and be closed to others: chmod 600 it, or delete it and start Mien again."
            )
        token = file.read().strip()
    if not token.startswith(PREFIX) or len(token) < len(PREFIX) + TOKEN_BYTES:
        raise LocalTokenError(f"{path} is damaged: delete it and start Mien again; a new one is made.")
    return token
