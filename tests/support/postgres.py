"""A private PostgreSQL server for tests: in a temporary folder, on a unix socket, run by an unprivileged user."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"
QUICK = "-c fsync=off -c max_connections=200"
"""For tests, which need no power cut to be survived."""


def server_programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``, the newest first."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: -int(p.parts[-3]))
    return candidates[0].parent if candidates else None


class Postgres:
    """One server in a folder of its own; ``folder`` is also that of its socket. Stopped and started at will."""

    def __init__(self, programs: Path, settings: str = QUICK) -> None:
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="mien-pg-"))
        self.log = self.folder / "log"
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self.folder, USER, USER)
            self._as_user = [_runuser(), "-u", USER, "--"]
        data = self.folder / "data"
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        self._control = [*self._as_user, str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(self.log)]
        _run([*self._as_user, *initdb])

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses='' {self.settings}"
        _run([*self._control, "-o", options, "start"])

    def stop(self, mode: str = "immediate") -> None:
        """End it: ``fast`` ends every session and shuts down in order, ``immediate`` is as a crash."""
        _run([*self._control, "-m", mode, "stop"])

    def remove(self) -> None:
        """Delete everything of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def private_server(programs: Path, settings: str = QUICK) -> Iterator[str]:
    """Start a server; gives the folder of its socket, and leaves nothing behind."""
    server = Postgres(programs, settings)
    try:
        server.start()
        try:
            yield str(server.folder)
        finally:
            server.stop()
    finally:
        server.remove()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")


def _runuser() -> str:
    """Root's tool to become another user; it lies where a plain PATH does not look."""
    return shutil.which("runuser", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "runuser"
