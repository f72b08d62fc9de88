"""Reaching a Mien from the command line: the one of MIEN_URL, the one that runs here, or one started for a command.

A system that a command starts is a process of its own (``cli.embedded.host``). Every command that uses it holds a
shared lock; the last to leave stops it. So several commands share one system, and none takes it from another.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.embedded.commands import in_this_python
from cli.embedded.state import FileLock, RunFiles, Running, same_process, take_lock
from cli.output import say
from mien.errors import UnavailableError
from mien.settings import Settings

if TYPE_CHECKING:
    from mien.client import Client

START_S = 120.0
STOP_EXTRA_S = 60.0
ALREADY_RUNNING = "already_running"
POLL_S = 0.2


@contextmanager
def working_mien(settings: Settings) -> Iterator[Client]:
    """A Mien that does its work for the length of the block: a running one, else one started for it and stopped after.

    Raises:
        MienError: none answers and none can be started.
    """
    if settings.url:
        with _remote(settings) as client:
            yield client
        return
    files = RunFiles(settings.data_dir)
    users = _join(files, settings)
    try:
        running = ensure_running(settings)
        with _local(settings, running.url) as client:
            yield client
    finally:
        _leave(files, settings, users)


@contextmanager
def readable_mien(settings: Settings) -> Iterator[Client]:
    """A Mien that answers questions: a running one, else its front end alone, inside this process."""
    if settings.url:
        with _remote(settings) as client:
            yield client
        return
    running = RunFiles(settings.data_dir).read_running()
    if running is not None:
        with _local(settings, running.url) as client:
            yield client
        return
    with _front_end_here(settings) as url, _local(settings, url) as client:
        yield client


def ensure_running(settings: Settings) -> Running:
    """The running system of the data folder, started now if there is none.

    Raises:
        MienError: why it does not start.
    """
    files = RunFiles(settings.data_dir)
    deadline = time.monotonic() + START_S
    announced = False
    while time.monotonic() < deadline:
        running = files.read_running()
        if running is not None:
            return running
        if not announced:
            say("Starting Mien ...")
            announced = True
        with take_lock(files.start_lock, timeout_s=START_S) or _nobody():
            if files.read_running() is None:
                _start(files, settings)
        time.sleep(POLL_S)
    raise UnavailableError(f"Mien did not start within {START_S:g} s; {files.logs} says more.")


def _nobody() -> FileLock:
    raise UnavailableError("Another `mien` command has been starting Mien for too long; try again.")


def _start(files: RunFiles, settings: Settings) -> None:
    """Start the background system and wait for its word. One that runs already is as good."""
    reading, writing = os.pipe()
    with (files.logs / "supervisor.log").open("ab") as log:
        host = subprocess.Popen(
            [*in_this_python(["cli.embedded.host"]), str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=files.folder,
            env={**os.environ, "MIEN_DATA_DIR": str(settings.data_dir), "PYTHONSAFEPATH": "1"},
            start_new_session=True,
            pass_fds=[writing],
        )
    os.close(writing)
    with os.fdopen(reading) as words:
        said = words.read()
    try:
        word = json.loads(said)
    except ValueError:
        raise UnavailableError(
            f"Mien did not start (its supervisor ended with code {host.wait()}); see {files.logs / 'supervisor.log'}."
        ) from None
    if "error" in word:
        host.wait()
        if word["code"] != ALREADY_RUNNING:
            raise UnavailableError(word["error"], code=word["code"])


def _join(files: RunFiles, settings: Settings) -> FileLock:
    """Be counted among those who use the system. Waits while another stops it."""
    try:
        files.make()
    except OSError as error:
        raise UnavailableError(
            f"The data folder {settings.data_dir} cannot be used ({os.strerror(error.errno or 0)}). "
            "Name another in MIEN_DATA_DIR."
        ) from None
    users = take_lock(files.users_lock, shared=True, timeout_s=3 * settings.drain_s + STOP_EXTRA_S)
    if users is None:
        raise UnavailableError("Mien has been stopping for too long; try again, or see `mien doctor`.")
    return users


def _leave(files: RunFiles, settings: Settings, users: FileLock) -> None:
    """Be counted no more; whoever is the last stops a system that was started for a command."""
    users.release()
    last = take_lock(files.users_lock, timeout_s=0.3)  # the system itself holds it for a moment now and then
    if last is None:
        return
    with last:
        running = files.read_running()
        if running is not None and running.command == "session":
            say("Stopping Mien ...")
            stop(running, timeout_s=3 * settings.drain_s + STOP_EXTRA_S)


def stop(running: Running, timeout_s: float) -> None:
    """Ask a supervisor to drain, and wait for its end."""
    try:
        os.kill(running.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + timeout_s
    while same_process(running.pid, running.created) and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def _remote(settings: Settings) -> Iterator[Client]:
    from mien.client import Client

    with Client(settings.url, settings.api_key or None) as client:
        yield client


@contextmanager
def _local(settings: Settings, url: str) -> Iterator[Client]:
    """A client that shows the local token: whoever owns the data folder may name any folder of this machine."""
    from mien.client import Client
    from mien.local_token import read_or_make_token

    with Client(url, read_or_make_token(settings.data_dir)) as client:
        yield client


@contextmanager
def _front_end_here(settings: Settings) -> Iterator[str]:
    """Serve the front end from a thread of this process, on a free port of loopback; nothing else runs.

    Raises:
        MienError: the ledger does not answer.
    """
    from werkzeug.serving import WSGIRequestHandler, make_server

    from cli.ledger import prepare_ledger
    from mien.settings import load_settings

    class Quiet(WSGIRequestHandler):
        """No line per request."""

        def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name
            """Called by werkzeug."""

    if settings.database_url:
        from cli.ledger import open_ledger

        with open_ledger(settings):
            pass
    else:
        prepare_ledger(settings)
    from web.app import create_app

    app = create_app(load_settings(data_dir=settings.data_dir, host="127.0.0.1"))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, name="front end", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=5)
        server.server_close()
