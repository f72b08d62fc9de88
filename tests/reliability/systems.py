"""A whole Mien to be broken on purpose, both ways: (SQLite, embedded) and (PostgreSQL, Redis), with real processes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import redis

from cli.embedded import commands
from mien.client import Client
from mien.database import Database
from mien.errors import MienError
from mien.models import ModelStore
from mien.predict import connect
from tests.end_to_end.system import Mien, _children
from tests.reliability.watcher import Watcher
from tests.support.machine import lacking
from tests.support.postgres import USER, Postgres, server_programs
from tests.support.redis import Redis, free_port
from tests.support.tiny_model import make_tiny_model

WAYS = ("embedded", "production")
NAMES = {"embedded": "SQLite, embedded", "production": "PostgreSQL, Redis"}
QUICK = {
    "MIEN_MODEL": "tiny",
    "MIEN_LEASE_S": "2",
    "MIEN_SWEEP_INTERVAL_S": "0.5",
    "MIEN_DRAIN_S": "10",
    "MIEN_CHUNK_SIZE": "16",
    "MIEN_CHUNK_S": "0",
    "MIEN_ENGINES": "2",
    "MIEN_IMAGE_TIMEOUT_S": "6",
    "MIEN_ENGINE_MAX_RSS_BYTES": str(256 << 20),
    "MIEN_LOG_LEVEL": "INFO",
    # what an image's name asks for: see worker/faults.py
    "MIEN_FAULTS": "slow:*slow*,crash:*crash*,abort:*abort*,exit:*exit*,hang:*hang*,oom:*oom*",
}
"""Times short enough to wait for: a lost lease comes back after two seconds."""


class System(ABC):
    """One running Mien, what can be done to it, and the watcher that looks at its ledger all the while."""

    way: str

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.points = folder / "points"
        self.points.mkdir(parents=True)
        self.mien = Mien(folder / "data", {**QUICK, "MIEN_FAULT_POINTS": str(self.points), **settings})
        self.mien.settings["MIEN_ROOTS"] = str(folder)
        ModelStore(self.mien.data / "models").install(make_tiny_model(folder / "tiny"))
        self._extra: list[subprocess.Popen[bytes]] = []

    # life

    def prepare(self) -> None:  # noqa: B027 - the embedded way needs nothing
        """Start what has to be there before a command can open the ledger."""

    @abstractmethod
    def start(self) -> None:
        """Start every part and wait until the front end answers."""

    @abstractmethod
    def stop(self) -> None:
        """End everything."""

    @abstractmethod
    def process(self, part: str) -> psutil.Process:
        """The first process of web, worker or control as it runs now."""

    @abstractmethod
    def broker_process(self) -> psutil.Process:
        """The broker's server."""

    @abstractmethod
    def database_url(self) -> str:
        """The ledger."""

    def begin(self) -> None:
        """Start it, and look at its ledger from here on."""
        self.start()
        self.db = Database(self.database_url())
        self.watcher = Watcher(self.db)

    def end(self) -> None:
        """Stop looking and end everything."""
        self.watcher.stop()
        self.db.dispose()
        for process in self._extra:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.stop()

    # talking to it

    def client(self, **options: float) -> Client:
        """A client with the key."""
        return Client(self.mien.url(), self.mien.key(), **options)  # type: ignore[arg-type]

    def redis(self) -> redis.Redis:
        """A connection to the broker."""
        url = self.mien.settings.get("MIEN_BROKER_URL") or self.mien.files.broker_url.read_text().strip()
        return connect(url)

    def wait_for(self, is_so: Callable[[], object], what: str, seconds: float = 60.0) -> float:
        """Wait until something is so (a Mien that is away meanwhile is borne); gives the seconds."""
        started = time.monotonic()
        while True:
            with suppress(MienError, psutil.Error):
                if is_so():
                    return time.monotonic() - started
            assert time.monotonic() - started < seconds, f"waited {seconds:g} s in vain for: {what}\n{self.mien.logs()}"
            time.sleep(0.05)

    # breaking it

    def kill(self, part: str) -> None:
        """kill -9 of a part's first process alone; whoever looks after it starts it again."""
        self.process(part).kill()

    def engines(self) -> list[psutil.Process]:
        """The engines of all workers."""
        return [child for worker in self.workers() for child in _children(worker) if _is_engine(child)]

    def workers(self) -> list[psutil.Process]:
        """The workers' first processes."""
        extra = [psutil.Process(worker.pid) for worker in self._extra if worker.poll() is None]
        with suppress(AssertionError, psutil.Error):
            return [self.process("worker"), *extra]
        return extra

    def everything(self) -> list[psutil.Process]:
        """Every process of it but the database's server."""
        found: list[psutil.Process] = []
        for first in [self.process("web"), self.process("control"), self.broker_process(), *self.workers()]:
            found += [first, *_children(first)]
        return found

    def add_worker(self) -> psutil.Process:
        """One more worker, by the command an operator would use."""
        with (self.mien.files.logs / "worker2.log").open("ab") as log:
            process = subprocess.Popen(
                commands.in_this_python([*commands.worker("cpu", 2)[:-1], f"second{len(self._extra)}@%h"]),
                env=self.mien.environment,
                stdout=log,
                stderr=log,
                cwd=self.mien.files.folder,
                start_new_session=True,
            )
        self._extra.append(process)
        return psutil.Process(process.pid)

    def end_extra(self) -> None:
        """End the workers that were added, gently."""
        for process in self._extra:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.terminate()
        for process in self._extra:
            process.wait(timeout=40)
        self._extra.clear()

    def arm(self, point: str, what: str = "crash") -> None:
        """The next process that comes to the fault point crashes, or freezes."""
        order = self.points / f".{point}"
        order.write_text(what)
        order.rename(self.points / point)

    def recover(self) -> None:
        """After a broken promise: nothing is armed or frozen any more, and the next one begins on a sound system."""
        for order in self.points.iterdir():
            order.unlink(missing_ok=True)
        with suppress(AssertionError, psutil.Error):
            wake(self.everything())
        self.end_extra()

    def is_armed(self, point: str) -> bool:
        """Whether nobody has come there yet."""
        return (self.points / point).exists()


class Embedded(System):
    """``mien up``: its supervisor starts again what dies."""

    way = "embedded"

    def start(self) -> None:
        """See :class:`System`."""
        log = self.folder / "up.log"
        with log.open("ab") as out:
            self._up = subprocess.Popen(
                commands.in_this_python(["cli.main", "up"]),
                env=self.mien.environment,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                start_new_session=True,
            )
        self.mien.wait_for(lambda: self.mien.files.read_running() or self._up.poll() is not None, "mien up is ready")
        assert self._up.poll() is None, log.read_text()

    def stop(self) -> None:
        """See :class:`System`."""
        self._up.send_signal(signal.SIGTERM)
        try:
            assert self._up.wait(timeout=60) == 0
            assert not self.mien.parts(), "processes were left behind"
        finally:
            self.mien.kill_everything()
            if self._up.poll() is None:
                self._up.kill()
                self._up.wait()

    def process(self, part: str) -> psutil.Process:
        """See :class:`System`."""
        return self.mien.part(part)

    def broker_process(self) -> psutil.Process:
        """See :class:`System`."""
        return self.mien.part("broker")

    def everything(self) -> list[psutil.Process]:
        """Supervisor and watchdog as well."""
        up = psutil.Process(self._up.pid)
        return list({process.pid: process for process in [*super().everything(), up, *_children(up)]}.values())

    def database_url(self) -> str:
        """See :class:`System`."""
        return f"sqlite:///{self.mien.data / 'mien.sqlite3'}"


class Production(System):
    """The processes of docker-compose.yml, started again when they die, as ``restart: unless-stopped`` does."""

    way = "production"
    RESTART_S = 0.3

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        programs, redis_server = server_programs(), shutil.which("redis-server")
        if programs is None or redis_server is None:
            lacking("PostgreSQL's server programs and redis-server have to be installed")
        self.postgres = Postgres(programs)
        self.redis_server = Redis(redis_server, folder)
        key, port = secrets.token_urlsafe(32), free_port()
        self.mien.settings |= {
            "MIEN_DATABASE_URL": f"postgresql://{USER}@/postgres?host={self.postgres.folder}",
            "MIEN_BROKER_URL": self.redis_server.url,
            "MIEN_BOOTSTRAP_KEY": key,
            "MIEN_API_KEY": key,
            "MIEN_HOST": "0.0.0.0",  # noqa: S104 - as in a container: a key is required then
            "MIEN_PORT": str(port),
            "MIEN_URL": f"http://127.0.0.1:{port}",
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._prepared = False

    def prepare(self) -> None:
        """See :class:`System`."""
        self.postgres.start()
        self.redis_server.start()
        self._prepared = True

    def start(self) -> None:
        """See :class:`System`."""
        if not self._prepared:
            self.prepare()
        self.mien.run("migrate")
        self.mien.files.make()
        for name in ("web", "control", "worker"):
            self._launch(name)
        self._keeper = threading.Thread(target=self._keep_running, daemon=True)
        self._keeper.start()
        self.mien.wait_for(self.mien.answers, "the front end answers")

    def stop(self) -> None:
        """See :class:`System`."""
        self._stopping.set()
        self._keeper.join()
        for process in self._processes.values():
            process.terminate()
        try:
            for process in self._processes.values():
                process.wait(timeout=40)
        finally:
            for process in self._processes.values():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self.redis_server.stop()
            with suppress(RuntimeError):
                self.postgres.stop()
            self.postgres.remove()

    def process(self, part: str) -> psutil.Process:
        """See :class:`System`."""
        self.mien.wait_for(lambda: self._processes[part].poll() is None, f"a {part}")
        return psutil.Process(self._processes[part].pid)

    def broker_process(self) -> psutil.Process:
        """See :class:`System`."""
        return psutil.Process(self.redis_server.pid)

    def database_url(self) -> str:
        """See :class:`System`."""
        return self.mien.settings["MIEN_DATABASE_URL"]

    def _launch(self, name: str) -> None:
        command = {"web": commands.web(), "worker": commands.worker("cpu", 2), "control": commands.control()}[name]
        with (self.mien.files.logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                commands.in_this_python(command),
                env=self.mien.environment,
                stdout=log,
                stderr=log,
                cwd=self.mien.files.folder,
                start_new_session=True,
            )

    def _keep_running(self) -> None:
        while not self._stopping.wait(self.RESTART_S):
            for name, process in list(self._processes.items()):
                if process.poll() is not None:
                    self._launch(name)


KINDS: dict[str, type[System]] = {"embedded": Embedded, "production": Production}


@contextmanager
def running(way: str, folder: Path, **settings: str) -> Iterator[System]:
    """A running Mien for as long as a block."""
    system = KINDS[way](folder, **settings)
    system.begin()
    try:
        yield system
    finally:
        system.end()


def freeze(processes: list[psutil.Process]) -> None:
    """SIGSTOP, all of them."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)


def wake(processes: list[psutil.Process]) -> None:
    """SIGCONT, all of them."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def _is_engine(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "worker.engine" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    return False
