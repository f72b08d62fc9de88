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


def server_programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``, the newest first."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: -int(p.parts[-3]))
    return candidates[0].parent if candidates else None


@contextmanager
def private_server(programs: Path) -> Iterator[str]:
    """Start a server; gives the folder of its socket, and leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="mien-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, USER, USER)
        as_user = [_runuser(), "-u", USER, "--"]
    data = folder / "data"
    control = [*as_user, str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
    try:
        _run(
            [*as_user, str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        )
        _run([*control, "-o", f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=200", "start"])
        try:
            yield str(folder)
        finally:
            _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")


def _runuser() -> str:
    """Root's tool to become another user; it lies where a plain PATH does not look."""
    return shutil.which("runuser", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "runuser"
