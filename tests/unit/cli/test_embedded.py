"""The pieces of an embedded Mien: locks, records, the broker, and parts that are watched and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cli.embedded import broker, leftovers
from cli.embedded.parts import LARGEST_LOG_BYTES, Part, shorten_log
from cli.embedded.state import RunFiles, take_lock
from mien.queue import broker_url
from mien.settings import Settings

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
DEAF = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
)


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    found = RunFiles(tmp_path / "data")
    found.make()
    return found


@pytest.fixture
def make_part(files: RunFiles) -> Iterator[Callable[..., Part]]:
    made: list[Part] = []

    def make(command: tuple[str, ...] = SLEEP, name: str = "worker", grace_s: float = 5) -> Part:
        made.append(Part(name, command, files.identity, files.folder, files.logs / f"{name}.log", grace_s))
        return made[-1]

    yield make
    for part in made:
        part.stop(lambda: True)


def wait_for(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_locks_exclude_and_sharers_share(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "lock"
    with take_lock(file, shared=True) as first, take_lock(file, shared=True) as second:  # type: ignore[union-attr]
        assert first
        assert second
        assert take_lock(file) is None
    with take_lock(file) as alone:  # type: ignore[union-attr]
        assert alone
        assert take_lock(file, shared=True, timeout_s=0.2) is None
    assert take_lock(file) is not None


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from cli.embedded.state import take_lock;"
        "lock = take_lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert take_lock(file) is None
        holder.kill()
        holder.wait()
        lock = take_lock(file, timeout_s=5)
        assert lock is not None
        lock.release()


def test_a_record_counts_only_while_its_process_lives(files: RunFiles) -> None:
    assert files.read_running() is None
    files.write_running("http://127.0.0.1:1", "up")
    running = files.read_running()
    assert running is not None
    assert (running.url, running.pid, running.command) == ("http://127.0.0.1:1", os.getpid(), "up")
    facts = json.loads(files.system.read_text())
    files.system.write_text(json.dumps(facts | {"created": facts["created"] - 100}))  # the number was used again
    assert files.read_running() is None
    files.system.write_text("{ half a rec")
    assert files.read_running() is None


def test_a_part_is_started_again_later_and_later(make_part: Callable[..., Part]) -> None:
    part = make_part((sys.executable, "-c", "print('what went wrong')"))
    waits = []
    for _ in range(8):
        part.start()
        wait_for(lambda: not part.is_running())
        waits.append(part.plan_restart())
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert not part.is_due()
    assert part.last_words() == "what went wrong"


def test_a_part_says_how_it_ended(make_part: Callable[..., Part]) -> None:
    part = make_part()
    part.start()
    assert part.pid
    os.kill(part.pid, signal.SIGKILL)
    wait_for(lambda: not part.is_running())
    assert part.ending() == "was ended by SIGKILL"
    failing = make_part((sys.executable, "-c", "raise SystemExit(7)"))
    failing.start()
    wait_for(lambda: not failing.is_running())
    assert failing.ending() == "ended with code 7"


def test_stopping_asks_first_and_kills_the_deaf_with_their_children(make_part: Callable[..., Part]) -> None:
    polite = make_part()
    polite.start()
    assert polite.stop()
    deaf = make_part(DEAF, grace_s=0.5)
    deaf.start()
    wait_for(lambda: deaf.last_words() == "ready")
    process = deaf.process
    assert process is not None
    assert not deaf.stop()
    assert not process.is_running()


def test_parts_have_their_own_session_so_that_ctrl_c_misses_them(
    make_part: Callable[..., Part],
) -> None:
    part = make_part()
    part.start()
    assert part.pid
    assert os.getsid(part.pid) == part.pid != os.getsid(0)


def test_leftovers_are_found_by_their_mark_and_ended_in_order(files: RunFiles, make_part: Callable[..., Part]) -> None:
    for name in ("control", "web", "worker"):
        make_part(name=name).start()
    wait_for(lambda: len(leftovers.find(files.identity)) == 3)  # a process has no environment while it is being made
    found = leftovers.find(files.identity)
    assert [leftover.part for leftover in found] == ["web", "worker", "control"]
    assert leftovers.find("another") == []
    said: list[str] = []
    leftovers.end(found, grace_s=5, identity=files.identity, report=said.append)
    assert leftovers.find(files.identity) == []
    assert [sentence.split()[2] for sentence in said] == ["web", "worker", "control"]


def test_a_log_that_grew_too_long_is_kept_aside(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"x" * (LARGEST_LOG_BYTES + 1))
    shorten_log(log)
    assert log.stat().st_size == 0
    assert (tmp_path / "web.log.old").stat().st_size == LARGEST_LOG_BYTES + 1


def test_the_broker_answers_is_recorded_and_cleared_away(files: RunFiles) -> None:
    program = broker.server_program()
    assert program
    socket = broker.runtime_folder(files.identity) / "broker.sock"
    part = Part("broker", broker.command(program, socket), files.identity, files.folder, files.logs / "broker.log", 5)
    part.start()
    try:
        broker.record(files, socket)
        assert broker.wait_until_answering(socket), part.last_words()
        assert broker.recorded_socket(files) == socket
        assert broker_url(Settings(data_dir=files.data_dir)) == broker.url_of(socket)
        found = broker.answering_process(socket)
        assert found
        assert found.pid == part.pid
        assert [leftover.part for leftover in leftovers.find(files.identity)] == ["broker"]
        assert oct(socket.parent.stat().st_mode)[-3:] == "700"
    finally:
        part.stop()
    assert broker.answering_process(socket) is None
    broker.clear_away(files)
    assert not socket.parent.exists()
    assert broker.recorded_socket(files) is None


def test_the_socket_is_in_a_short_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = "0123456789ab"
    session = Path("/tmp") / f"mien-test-{os.getpid()}"
    session.mkdir(mode=0o700)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
        assert broker.runtime_folder(identity) == session / f"mien-{identity}"
        (session / f"mien-{identity}").chmod(0o777)  # open to others: not used
        elsewhere = broker.runtime_folder(identity)
        assert elsewhere.parent == Path("/tmp")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 120)))
        assert broker.runtime_folder(identity) == elsewhere
        assert len(os.fsencode(elsewhere / "broker.sock")) <= broker.MAX_SOCKET_BYTES
        elsewhere.rmdir()
    finally:
        (session / f"mien-{identity}").rmdir()
        session.rmdir()


def test_a_part_that_another_supervisor_left_can_be_taken_over(make_part: Callable[..., Part]) -> None:
    with subprocess.Popen(SLEEP, start_new_session=True) as left:
        part = make_part()
        part.adopt(psutil.Process(left.pid))
        assert part.is_running()
        assert part.pid == left.pid
        left.kill()
        left.wait()
        assert not part.is_running()
        assert part.ending() == "is gone"
