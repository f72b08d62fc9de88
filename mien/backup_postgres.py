"""PostgreSQL's own tools for the ledger: ``pg_dump`` takes a snapshot while all go on, ``pg_restore`` restores it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from mien.database import Database
from mien.errors import UnprocessableError


def dump_postgresql(db: Database, target: Path) -> None:
    """Write the database into a file of pg_dump's custom format.

    Raises:
        UnprocessableError: ``tool_missing``, ``tool_failed``.
    """
    _run("pg_dump", db, "--format", "custom", "--no-owner", "--no-privileges", "--file", str(target))
    target.chmod(0o600)


def load_postgresql(db: Database, dump: Path) -> None:
    """Bring a dump into the database, in one transaction; tables that are there are replaced.

    Raises:
        UnprocessableError: ``tool_missing``, ``tool_failed``; nothing was changed.
    """
    options = ("--clean", "--if-exists", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")
    _run("pg_restore", db, *options, str(dump))


def _run(program: str, db: Database, *arguments: str) -> None:
    if shutil.which(program) is None:
        raise UnprocessableError(
            f"{program} is not on the PATH of this machine. Install PostgreSQL's client tools (Debian: "
            "postgresql-client) in the server's version or newer, or run the command where they are.",
            code="tool_missing",
        )
    # the password goes by the environment: command lines are seen by everybody on the machine
    address = db.url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = {**os.environ, **({"PGPASSWORD": str(db.url.password)} if db.url.password else {})}
    done = subprocess.run(
        [program, f"--dbname={address}", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())[:500]
        raise UnprocessableError(f"{program} failed: {reason}", code="tool_failed")
