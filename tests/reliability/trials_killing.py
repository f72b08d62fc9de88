"""Promises 1, 5, 6 and 8: processes are killed, told to stop, poisoned and frozen."""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import sqlite3
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

import psutil
import requests
import sqlalchemy as sa

from mien.errors import ConflictError
from mien.schema import chunks, faces, images, jobs, tallies
from tests.end_to_end.system import _children
from tests.reliability.jobs import (
    charged,
    check,
    done,
    exact,
    facts,
    finish,
    greys,
    new_folder,
    portrait_kinds,
    portraits,
    rows,
    submit,
    wait_until_done,
)
from tests.reliability.promises import Trial, promise
from tests.reliability.systems import System, wake
from tests.reliability.trials_crashing import small_png, wait_for_crash
from tests.support.uploads import FORM, form

Face = tuple[str, ...]


@promise(1, "Exactly-once results")
def exactly_once(trial: Trial) -> str:
    """Workers and engines are killed with -9 at random moments; the answer is that of an undisturbed run."""
    system, count, kills = trial.system, trial.size(300, 10_000), trial.size(4, 20)
    undisturbed = _undisturbed(system)
    folder = new_folder(system)
    kinds = portraits(folder, count)
    job = submit(system, folder, faces="detect", detect_size=160)
    killed = {"worker": 0, "engine": 0}
    for share in sorted(trial.dice.uniform(0.02, 0.93) for _ in range(kills)):
        wait_until_done(system, job, int(share * count), 300)
        what = "worker" if trial.dice.random() < 0.3 else "engine"
        system.wait_for(lambda what=what: _kill_one(system, what, trial), f"a living {what}")
        killed[what] += 1
    finish(system, job, seconds=300)
    found: dict[str, list[Face]] = {name: [] for name in kinds}
    for row in rows(system, job):
        found[row["file"]].append(_face(row))
    assert len(found) == count, "images came up that are not in the folder"
    wrong = [name for name, kind in kinds.items() if sorted(found[name]) != undisturbed[kind]]
    assert not wrong, f"{len(wrong)} images differ from the undisturbed run, {wrong[0]}: {found[wrong[0]]}"
    row = exact(system, job)
    assert (row.total, row.failed, row.ok + row.no_face) == (count, 0, count)
    return (
        f"{count:,} images, {row.faces:,} faces; {killed['worker']} workers and {killed['engine']} engines killed; "
        "0 lost, 0 twice, 0 failed, 0 different"
    )


def _undisturbed(system: System) -> dict[int, list[Face]]:
    folder = new_folder(system)
    folder.mkdir()
    for kind, data in enumerate(portrait_kinds()):
        (folder / f"{kind}.jpg").write_bytes(data + secrets.token_bytes(8))
    job = submit(system, folder, faces="detect", detect_size=160)
    finish(system, job)
    answers: dict[int, list[Face]] = {kind: [] for kind in range(len(portrait_kinds()))}
    for row in rows(system, job):
        answers[int(row["file"][0])].append(_face(row))
    assert {len([face for face in answer if face[0]]) for answer in answers.values()} == {0, 1, 2}
    return {kind: sorted(answer) for kind, answer in answers.items()}


def _face(row: dict[str, str]) -> Face:
    # probabilities to four digits: batches differ in the last ones
    shares = [f"{float(value):.4f}" for name, value in row.items() if name.startswith("p_") and value]
    return (row["face"], row["x"], row["y"], row["width"], row["height"], row["emotion"], row["status"], *shares)


def _kill_one(system: System, what: str, trial: Trial) -> bool:
    living = system.workers() if what == "worker" else system.engines()
    if not living:
        return False
    trial.dice.choice(living).kill()
    return True


@promise(5, "Shutdown is gentle")
def gentle_shutdown(trial: Trial) -> str:
    """TERM: the worker is gone within 30 s, nothing is charged, its chunks are due at once; web ends its requests."""
    system, longest = trial.system, 0.0
    folder = new_folder(system)
    # an image that hangs is no reason to stay
    names = greys(folder, trial.size(200, 1500), named={40: "hang"} if trial.full else {})
    job = submit(system, folder)
    rounds = trial.size(1, 3)
    for _ in range(rounds):
        wait_until_done(system, job, done(system, job) + 20)
        worker = system.process("worker")
        below = _children(worker)
        started = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        with suppress(psutil.NoSuchProcess):
            worker.wait(timeout=30)
        longest = max(longest, time.monotonic() - started)
        assert not psutil.wait_procs(below, timeout=2)[1], "an engine outlived its worker"
        held = _held_by(system, job, worker.pid)
        assert held == 0, f"{held} chunks were not handed back"
        assert charged(system, job) == (0, 0), "an attempt was charged"
    finish(system, job, seconds=240)
    check(system, job, names, {names[40]: "timeout"} if trial.full else {})
    drained = _web_drains(system)
    return f"{rounds} workers told to stop, gone after {longest:.1f} s at most; 0 chunks kept, 0 charged; {drained}"


def _held_by(system: System, job: str, pid: int) -> int:
    with system.db.read() as connection:
        statement = (
            sa.select(sa.func.count())
            .select_from(chunks.join(jobs, jobs.c.id == chunks.c.job_id))
            .where(jobs.c.public_id == job, chunks.c.state == "leased", chunks.c.lease_owner.endswith(f".{pid}"))
        )
        return int(connection.execute(statement).scalar_one())


def _web_drains(system: System) -> str:
    """A long poll is answered, and an upload that is half sent is taken whole, while the front end stops."""
    web = system.process("web")
    where, head = urlsplit(system.mien.url()), {"Authorization": f"Bearer {system.mien.key()}"}
    running = submit(system, _slow_folder(system))
    wait_until_done(system, running, 1)
    with system.client() as client:
        draft = client.create_draft(options={"faces": "whole"}).id
    body = form({f"{number}.png": small_png(number) for number in range(50)})
    polled: list[int] = []

    def poll() -> None:
        address = f"{system.mien.url()}/api/v1/jobs/{running}"
        tag = requests.get(address, headers=head, timeout=30).headers["ETag"]
        polled.append(requests.get(f"{address}?wait=20", headers=head | {"If-None-Match": tag}, timeout=30).status_code)

    half_sent = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    half_sent.putrequest("POST", f"/api/v1/jobs/{draft}/images")
    for name, value in (head | FORM | {"Content-Length": str(len(body))}).items():
        half_sent.putheader(name, value)
    half_sent.endheaders(body[: len(body) // 2])
    poller = threading.Thread(target=poll)
    poller.start()
    time.sleep(0.5)
    web.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    half_sent.send(body[len(body) // 2 :])
    answer = half_sent.getresponse()
    said = json.loads(answer.read())
    half_sent.close()
    poller.join()
    assert (answer.status, said["files"]) == (200, 50), said
    assert polled in ([200], [304]), polled
    system.wait_for(system.mien.answers, "the front end answers again")
    with suppress(ConflictError), system.client() as client:  # it may have ended by itself
        client.delete(draft)
        client.cancel(running)
    system.wait_for(lambda: facts(system, running).status in ("cancelled", "completed"), "the end of the other job")
    return "web ended an upload and a long poll"


def _slow_folder(system: System) -> object:
    folder = new_folder(system)
    greys(folder, 400)
    return folder


@promise(6, "A poison image costs itself")
def poison(trial: Trial) -> str:
    """Images that crash, hang and exhaust the engine fail alone; the worker lives on and leaves no orphan."""
    system, count = trial.system, trial.size(60, 2000)
    kinds = {"crash": "engine_crashed", "hang": "timeout", "oom": "out_of_memory"}
    if trial.full:
        kinds |= {"abort": "engine_crashed", "exit": "engine_crashed"}
    places = trial.dice.sample(range(count), len(kinds) * trial.size(1, 2))
    named = {place: list(kinds)[number % len(kinds)] for number, place in enumerate(places)}
    folder = new_folder(system)
    names = greys(folder, count, "x", named)
    worker = system.process("worker")
    job = submit(system, folder)
    finish(system, job, seconds=300)
    table = check(system, job, names, {names[place]: "" for place in places})
    codes = _codes(system, job)
    wanted = {names[place]: kinds[kind] for place, kind in named.items()}
    assert codes == wanted, f"{codes}, not {wanted}"
    assert all(row["error"] for row in table if row["status"] == "failed")
    assert system.process("worker").pid == worker.pid, "the worker did not live on"
    orphans = _orphans_after_kill(system)
    return (
        f"{count:,} images, {len(places)} of them poison: {len(codes)} failed, {count - len(codes):,} ok; the worker "
        f"lived on; {orphans} engines without a parent after its kill -9"
    )


def _codes(system: System, job: str) -> dict[str, str]:
    with system.db.read() as connection:
        statement = sa.select(images.c.path_text, images.c.error_code).where(
            images.c.job_id == facts(system, job).id, images.c.outcome == "failed"
        )
        return {row.path_text: row.error_code for row in connection.execute(statement)}


def _orphans_after_kill(system: System) -> int:
    folder = new_folder(system)
    names = greys(folder, 120, named={3: "hang"})  # native code that never comes back
    job = submit(system, folder)
    wait_until_done(system, job, 10)
    system.wait_for(lambda: len(system.engines()) > 1, "some engines")
    worker = system.process("worker")
    below = _children(worker)
    worker.kill()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive, "engines outlived their worker"
    finish(system, job)
    check(system, job, names, {names[3]: ""})
    return len(alive)


@promise(8, "A late worker writes nothing")
def late_worker(trial: Trial) -> str:
    """A worker frozen past its lease with a chunk's results in hand, and woken, changes no row."""
    system, frozen = trial.system, 0
    # in the middle of a transaction only PostgreSQL can go on without it; SQLite's lock ends with its holder
    points = ["before_commit", *(["in_commit"] if system.way == "production" else [])]
    points += ["after_lease"] if trial.full else []
    for point in points * trial.size(1, 2):
        system.end_extra()
        folder = new_folder(system)
        names = greys(folder, trial.size(150, 900))  # enough to come to the point again where a freeze has to be undone
        job = submit(system, folder)
        wait_until_done(system, job, 1)
        late = _freeze_at(system, point)
        system.add_worker()
        finish(system, job, seconds=120)
        check(system, job, names)
        before, said = _everything_written(system, job), _dropped(system)
        wake(late)
        if point != "after_lease":  # there it gives up before it has any result
            system.wait_for(lambda said=said: _dropped(system) > said, "the late worker notices")
        time.sleep(2 if point == "after_lease" else 0.5)
        assert _everything_written(system, job) == before, "the late worker wrote something"
        frozen += 1
    system.end_extra()
    return f"{frozen} workers frozen past their lease and woken; 0 rows from them"


def _freeze_at(system: System, point: str) -> list[psutil.Process]:
    """Freeze the worker at a point, in one thread, while no other thread of it holds SQLite's lock; gives it."""
    while True:
        system.arm(point, "freeze")
        wait_for_crash(system, point)
        worker = system.process("worker")
        system.wait_for(lambda worker=worker: worker.status() == "stopped", "the worker is frozen")
        if system.way == "production" or _can_write(system):
            return [worker]
        wake([worker])


def _can_write(system: System) -> bool:
    ledger = sqlite3.connect(system.mien.data / "mien.sqlite3", isolation_level=None, timeout=1)
    try:
        ledger.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    finally:
        ledger.close()
    return True


def _dropped(system: System) -> int:
    """How often a worker said that its results came too late."""
    return sum(log.read_text().count("Its results are dropped.") for log in system.mien.files.logs.glob("worker*.log"))


def _rows_of(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> list[object]:
    return [tuple(row) for row in connection.execute(sa.select(table).where(which).order_by(*table.primary_key))]


def _everything_written(system: System, job: str) -> list[object]:
    job_id = facts(system, job).id
    with system.db.read() as connection:
        return [
            _rows_of(connection, table, which == job_id)
            for table, which in (
                (images, images.c.job_id),
                (faces, faces.c.job_id),
                (chunks, chunks.c.job_id),
                (tallies, tallies.c.job_id),
                (jobs, jobs.c.id),
            )
        ]  # fmt: skip
