"""The engine and its two kinds of session: ``read`` (a snapshot that blocks nobody) and ``write`` (short)."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mien.errors import SettingsError, UnavailableError

SQLITE_BUSY_TIMEOUT_MS = 60_000
"""How long a SQLite writer waits for another: longer than the 20 s lock that must fail nobody."""
EMPTY_WAL_TIMEOUT_MS = 1_000
PING_TIMEOUT_S = 5
LONGEST_PAUSE_S = 60.0
"""A transaction on PostgreSQL that stands still for so long is ended by the server, and its locks with it."""
_NOTICE_A_DEAD_SERVER = {
    "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000,
}  # fmt: skip

_END_STANDING_COPIES = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND usename = current_user AND state = 'active' AND wait_event = 'ClientRead' AND query LIKE 'COPY %FROM STDIN%' "
    "AND state_change < clock_timestamp() - make_interval(secs => :seconds)"
)


class Database:
    """One SQLAlchemy engine and the sessions on it. Safe to share between threads; make it after a fork or spawn."""

    def __init__(self, url: str, *, longest_pause_s: float = LONGEST_PAUSE_S) -> None:
        self.url = _parsed(url)
        self._longest_pause_s = longest_pause_s
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = sa.create_engine(self.url, hide_parameters=True, pool_size=20, max_overflow=40)
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        elif self.url.get_backend_name() == "postgresql":
            driver_url = self.url.set(drivername="postgresql+psycopg")
            self.engine = sa.create_engine(
                driver_url,
                pool_size=10,
                max_overflow=20,
                pool_timeout=10,
                pool_pre_ping=True,
                hide_parameters=True,  # an error in a log must not quote names of files
                connect_args={"connect_timeout": PING_TIMEOUT_S, **_NOTICE_A_DEAD_SERVER},
            )
            sa.event.listen(self.engine, "connect", self._prepare_postgresql)
        else:
            raise SettingsError(
                f"MIEN_DATABASE_URL: {self.url.get_backend_name()!r} is not supported; use sqlite:///file or postgresql://"
            )

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A read-only snapshot: every statement inside sees the same state. Never hold it across a wait or a yield.

        Raises:
            UnavailableError: the database does not answer.
        """
        options: dict[str, Any] = (
            {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        with _translated(), self.engine.connect() as plain, plain.execution_options(**options) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A short write transaction, committed at the end of the block (BEGIN IMMEDIATE on SQLite).

        Raises:
            UnavailableError: the database does not answer, or stayed locked.
        """
        with (
            _translated(),
            self.engine.connect() as plain,
            plain.execution_options(mien_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def now(self, connection: sa.Connection) -> dt.datetime:
        """The database's clock (UTC). SQLite has no server: its clock is this machine's, which all its users share."""
        if self.is_sqlite:
            return dt.datetime.fromtimestamp(time.time(), dt.UTC)
        moment: dt.datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        return moment.astimezone(dt.UTC)

    def empty_wal(self) -> bool:
        """Write SQLite's write-ahead log into the database and cut it to nothing, so that no deleted byte stays there;
        gives whether that was possible. Waits a second at most: meanwhile nobody can write."""
        if not self.is_sqlite:
            return True
        connection = self.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={EMPTY_WAL_TIMEOUT_MS}")
            try:
                busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
            return not busy
        finally:
            connection.close()

    def end_standing_copies(self) -> int:
        """End this user's sessions that stand still in the middle of a COPY, and their locks; gives how many.

        A process that is frozen while it sends rows is at work to PostgreSQL, whose timeout for idle sessions passes
        over it; nor does cancelling reach it, only ending the session.
        """
        if self.is_sqlite:
            return 0
        with self.write() as connection:
            return len(connection.execute(_END_STANDING_COPIES, {"seconds": self._longest_pause_s}).all())

    def _prepare_postgresql(self, connection: Any, _record: Any) -> None:
        # a process that is frozen, or whose machine is gone, in mid-transaction must not hold up all the others
        connection.autocommit = True
        connection.execute(f"SET idle_in_transaction_session_timeout = {round(self._longest_pause_s * 1000)}")
        connection.autocommit = False

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _parsed(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise SettingsError(  # without the value: it may hold a password
            "MIEN_DATABASE_URL is not the address of a database; write postgresql://USER:PASSWORD@HOST/NAME or "
            "sqlite:////absolute/path.sqlite3."
        ) from None


@contextmanager
def _translated() -> Iterator[None]:
    """Turn "the database is away" in any of its forms into one error that web answers with 503."""
    try:
        yield
    except (OperationalError, PoolTimeoutError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise UnavailableError(f"The database does not answer ({reason}). Try again in a moment.") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise UnavailableError("The connection to the database was lost. Try again in a moment.") from error
        if type(error) is DatabaseError:  # not one of its kinds: SQLite says so that the file is none of its own
            reason = str(error.orig).strip().splitlines()[0]
            raise UnavailableError(
                f"The database cannot be read ({reason}). Restore a backup, or name another."
            ) from error
        raise


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not by the driver's guess
    for pragma in (
        f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",  # an accepted job survives a power cut
        "foreign_keys=ON",
        "secure_delete=ON",
        "cache_size=-8192",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A deferred transaction that turns into a writer fails at once when another writes; an immediate one waits.
    write = connection.get_execution_options().get("mien_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
