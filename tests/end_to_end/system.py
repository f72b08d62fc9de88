"""A real Mien for tests: the commands as a person types them, the processes as an operator starts them."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from PIL import Image

from cli.embedded import commands
from cli.embedded.leftovers import Leftover, find
from cli.embedded.state import RunFiles

MIEN = (sys.executable, "-m", "cli.main")
READY_S = 60.0
SHORT = {
    "MIEN_LEASE_S": "3",
    "MIEN_SWEEP_INTERVAL_S": "0.5",
    "MIEN_DRAIN_S": "10",
    "MIEN_CHUNK_SIZE": "8",
    "MIEN_CHUNK_S": "0",
}
"""Times short enough for tests that kill: a lost lease comes back after three seconds, and chunks stay as small as they
were written, so that a job can be caught in its midst."""


@dataclass
class Mien:
    """One Mien under test: its settings, and ways to use it."""

    data: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What every process of it sees."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("MIEN_")}
        # PYTHONSAFEPATH: modules come from what is installed, as for a user in a folder of their own
        return {
            **own,
            "PYTHONSAFEPATH": "1",
            "MIEN_DATA_DIR": str(self.data),
            "MIEN_PORT": "0",
            **SHORT,
            **self.settings,
        }

    def run(self, *arguments: str | Path, code: int = 0, cwd: Path | None = None, **changes: str) -> str:
        """Run one command to its end, check its exit code, and give its standard output."""
        done = subprocess.run(
            [*MIEN, *map(str, arguments)],
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            timeout=100,
            cwd=cwd or self.data.parent,
            check=False,
        )
        said = f"mien {' '.join(map(str, arguments))}: code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, said
        assert "Traceback" not in done.stderr, said
        return done.stdout if code == 0 else done.stdout + done.stderr

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start one command and come back at once."""
        return subprocess.Popen(
            [*MIEN, *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.data.parent,
            start_new_session=True,
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - it sets one signal and no more
        )

    @contextmanager
    def up(self, *folders: Path) -> Iterator[subprocess.Popen[str]]:
        """``mien up`` until the end of the block; then Ctrl-C, which has to end it cleanly."""
        process = self.start("up", *folders)
        try:
            self.wait_for(lambda: self.files.read_running() or process.poll() is not None, "mien up is ready")
            assert process.poll() is None, f"mien up ended: {process.communicate()[0]}"
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                said, _ = process.communicate(timeout=60)
                assert process.returncode == 0, said
                assert "Stopped." in said
                assert not self.parts(), said
        finally:
            self.kill_everything()
            process.kill()
            process.communicate()

    @property
    def files(self) -> RunFiles:
        """The run-time files of its data folder."""
        return RunFiles(self.data)

    def parts(self) -> list[Leftover]:
        """The parts that live."""
        return find(self.files.identity)

    def part(self, name: str) -> psutil.Process:
        """The first process of a part, waited for if it is just being started again."""
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = [part.process for part in self.parts() if part.part == name]
            return bool(found)

        self.wait_for(look, f"a {name}")
        return found[0]

    def kill_everything(self, but: str = "") -> None:
        """kill -9 of every process of it (``but`` one part): supervisor and watchdog first, then all at once."""
        running = self.files.read_running()
        watchdogs = [p for p in psutil.process_iter(["cmdline"]) if str(self.data) in (p.info["cmdline"] or [])]
        parts = [part.process for part in self.parts() if part.part != but]
        doomed = [*([psutil.Process(running.pid)] if running else []), *watchdogs]
        for part in parts:
            doomed += [part, *_children(part)]
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(doomed, timeout=10)

    def wait_for(self, is_so: Callable[[], object], what: str, seconds: float = READY_S) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for: {what}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of the logs, for messages of failed tests."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self.files.logs.glob("*.log")))

    def job_of(self, folder: Path, *options: str) -> str:
        """Submit a folder over HTTP, as a client would, and give the job's id."""
        from mien.client import Client

        with Client(self.url(), self.key()) as client:
            return client.submit_folder(str(folder), faces="whole" if "whole" in options else "detect").id

    def url(self) -> str:
        """Where its front end answers."""
        if "MIEN_URL" in self.settings:
            return self.settings["MIEN_URL"]
        running = self.files.read_running()
        assert running is not None
        return running.url

    def key(self) -> str:
        """The API key, or the local token."""
        from mien.local_token import read_or_make_token

        return self.settings.get("MIEN_API_KEY") or read_or_make_token(self.data)

    def answers(self) -> bool:
        """Whether its front end answers."""
        from mien.client import Client

        with Client(self.url()) as client:
            return client.is_alive()

    def counts(self, job: str) -> dict[str, int]:
        """The counts of a job, over HTTP."""
        from mien.client import Client

        with Client(self.url(), self.key()) as client:
            return client.job(job).counts.model_dump()


@dataclass
class ByHand:
    """The processes of a production Mien, started by the commands of docker-compose.yml."""

    mien: Mien
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, kind: str = "", **changes: str) -> None:
        """Start one of web, worker, control; a second one of a ``kind`` under a name of its own."""
        kinds = {"web": commands.web(), "worker": commands.worker("cpu", 2), "control": commands.control()}
        command = kinds[kind or name]
        self.mien.files.make()
        with (self.mien.files.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                commands.in_this_python(command),
                env={**self.mien.environment, **changes},
                stdout=log,
                stderr=log,
                cwd=self.mien.files.folder,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """kill -9 of this process alone; its children have to notice by themselves."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """Stop them all as a container runtime does: TERM, then KILL after the grace."""
        for process in self.processes.values():
            process.terminate()
        for name, process in self.processes.items():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise AssertionError(f"{name} did not end within 30 s of SIGTERM\n{self.mien.logs()}") from None


def _hear_ctrl_c() -> None:
    """As from a terminal: a shell has what it runs in the background ignore SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def kill(process: psutil.Process) -> None:
    """kill -9, and wait until it is gone."""
    try:
        process.kill()
        process.wait(timeout=10)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        return


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def rows_of(table: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    text = table.read_bytes().decode() if isinstance(table, Path) else table
    return list(csv.DictReader(io.StringIO(text, newline="")))


def job_in(said: str) -> str:
    """The job id in what a command said."""
    found = re.search(r"Job (\w+)", said)
    assert found, said
    return found.group(1)


def grey(path: Path, level: int, size: tuple[int, int] = (40, 30)) -> Path:
    """An image of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path)
    return path
