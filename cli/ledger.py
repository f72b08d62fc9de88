"""Opening the ledger from the command line: bringing it up to date, and a connection to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mien.errors import UnavailableError
from mien.settings import Settings

if TYPE_CHECKING:
    from mien.database import Database


def prepare_ledger(settings: Settings) -> list[str]:
    """Migrate the ledger, make the first key where one is set, install the shipped model; gives what was done.

    Raises:
        MienError: the database does not answer, the model is defective.
    """
    from mien.erasure import apply_again
    from mien.keys import any_key, create_key
    from mien.models import ModelStore
    from mien.resources import resource
    from mien.schema_version import is_current

    done = []
    with _opened(settings) as db:
        if is_current(db):
            done.append("the ledger is up to date already")
        else:
            from mien.migrate import migrate  # Alembic: slow to import, and needed once

            migrate(db)
            done.append("the ledger was brought up to date")
        if again := apply_again(db, settings):  # before anybody can read it
            done.append(f"{again:,} deletions that a backup had undone are carried out again")
        if settings.bootstrap_key and not any_key(db):
            create_key(db, "bootstrap", secret=settings.bootstrap_key, scope="admin")
            done.append("the first API key was made from MIEN_BOOTSTRAP_KEY")
    model = ModelStore(settings.models, resource("models/default")).ensure_shipped()
    done.append(f"the default model is {model.name}, revision {model.revision[:12]}")
    return done


def require_keys(settings: Settings) -> None:
    """Say at once, rather than in the front end's log, that this Mien may not be started for others to reach.

    Raises:
        SettingsError: ``no_key``, ``weak_password``.
    """
    if settings.is_loopback:
        return
    from web.auth import require_secrets_beyond_loopback

    with _opened(settings) as db:
        require_secrets_beyond_loopback(settings, db)


@contextmanager
def open_ledger(settings: Settings) -> Iterator[Database]:
    """The ledger, which has to be of this version.

    Raises:
        UnavailableError: it does not answer, or needs `mien migrate`.
    """
    from mien.schema_version import is_current

    with _opened(settings) as db:
        if not is_current(db):
            raise UnavailableError("The ledger is new or of another version; run `mien migrate` first.")
        yield db


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    from mien.database import Database

    if not settings.database_url:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = Database(settings.database)
    try:
        yield db
    finally:
        db.dispose()
