"""What an embedded Mien writes down in its data folder, and the locks that keep it to one per folder.

Locks are ``flock``: the kernel takes them away from a process that dies, however it dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import psutil

POLL_S = 0.1


class FileLock:
    """A held ``flock``. It ends with :meth:`release` or with the process; child processes do not inherit it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give the lock up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def take_lock(path: Path, *, shared: bool = False, timeout_s: float = 0) -> FileLock | None:
    """Take the lock of this file (exclusive, or shared with other sharers); None if that fails within ``timeout_s``."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(POLL_S)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return FileLock(descriptor)


@dataclass(frozen=True)
class Running:
    """The embedded Mien that runs for a data folder, as it wrote itself down."""

    url: str
    pid: int
    created: float  # when the supervisor's process began: tells it from a later process with the same number
    command: str  # "up", or "session" when it was started for the length of a command

    @property
    def is_alive(self) -> bool:
        """Whether its supervisor still lives."""
        return same_process(self.pid, self.created)


class RunFiles:
    """The run-time files of one data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / "run"
        self.logs = data_dir / "logs"
        self.broker_url = data_dir / "broker.url"
        self.system = self.folder / "system.json"
        self.system_lock = self.folder / "system.lock"  # held by the supervisor
        self.watchdog_lock = self.folder / "watchdog.lock"  # held by the supervisor's watchdog
        self.users_lock = self.folder / "users.lock"  # shared by the commands that use a system started for a command
        self.start_lock = self.folder / "start.lock"  # held while one of them starts it
        self.identity = hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:12]

    def make(self) -> None:
        """Make the folders."""
        for folder in (self.data_dir, self.folder, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read_running(self) -> Running | None:
        """The running system, if its supervisor lives."""
        try:
            running = Running(**json.loads(self.system.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return running if running.is_alive else None

    def write_running(self, url: str, command: str) -> None:
        """Write this process down as the supervisor of the running system."""
        facts = Running(url, os.getpid(), psutil.Process().create_time(), command)
        write_whole(self.system, json.dumps(asdict(facts)) + "\n")

    def forget_running(self) -> None:
        """Nothing runs any more."""
        self.system.unlink(missing_ok=True)


def same_process(pid: int, created: float) -> bool:
    """Whether the process ``pid`` still is the one that began at ``created`` (and is not only waiting to be reaped)."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once, so that readers find the old text or the new, never a part."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)
