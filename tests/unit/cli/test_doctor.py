"""``mien doctor``: the mistakes of a new user, each made for real: what is wrong, with which setting, what to do."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cli.doctor import configuration, engine, machine, services
from cli.doctor.finding import Finding, Look
from cli.doctor.report import facts_of, show_report
from cli.ledger import prepare_ledger
from cli.main import run
from mien.database import Database
from mien.schema import images, jobs
from mien.settings import Settings, load_settings
from tests.support.ledger import expanded_job
from tests.support.machine import ROOT
from tests.support.redis import free_port
from worker.gpus import gpu_count

EVERYBODY = "0.0.0.0"  # noqa: S104 - the mistake


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as `mien up` makes it: a migrated ledger and the shipped model."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare_ledger(Settings(data_dir=folder))
    return folder


@pytest.fixture
def data(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own, whose models are those of all."""
    folder = tmp_path / "data"
    folder.mkdir()
    for file in prepared.glob("mien.sqlite3*"):
        shutil.copy(file, folder)
    (folder / "models").symlink_to(prepared / "models")
    monkeypatch.setenv("MIEN_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def own_signals() -> Iterator[None]:
    """What a command does about signals ends with the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def waiting_job(data: Path, tmp_path: Path) -> str:
    """The address of a ledger with a job of two images that nobody works on."""
    url = f"sqlite:///{data / 'mien.sqlite3'}"
    db = Database(url)
    expanded_job(db, tmp_path / "photos", 2)
    db.dispose()
    return url


def one(look: Look, state: str, name: str) -> Finding:
    """The only finding of that state, which has to be about ``name``; what is not in order has a mend."""
    found = [finding for finding in look(load_settings()) if finding.state == state]
    assert [finding.name for finding in found] == [name]
    assert (state == "ok") == (found[0].mend == "")
    return found[0]


# the ten of docs/operator.md, in its order


def test_1_a_setting_is_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_DATABSE_URL", "postgresql://db/mien")
    monkeypatch.setenv("MIEN_COLOUR", "blue")
    strange, misspelt = configuration.variables()
    assert (strange.state, strange.found) == ("note", "MIEN_COLOUR means nothing to Mien")
    assert (misspelt.state, misspelt.found) == ("bad", "MIEN_DATABSE_URL means nothing to Mien; MIEN_DATABASE_URL does")
    assert "rename it to MIEN_DATABASE_URL" in misspelt.mend


def test_2_a_setting_has_a_value_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIEN_PORT", "http")
    assert run(["doctor"]) == 1
    said = capsys.readouterr()
    assert "bad   settings: MIEN_PORT: Input should be a valid integer" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    ("root", "reason", "mend"),
    [
        ("{tmp}/nowhere", "is not there", "MIEN_ROOTS"),
        ("{tmp}/a,{tmp}/b", "is not there", "separate folders by ':'"),
        ("{tmp}/photo.jpg", "is not a folder", "name the folder"),
    ],
)
def test_3_the_folder_of_photographs_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, reason: str, mend: str
) -> None:
    (tmp_path / "photo.jpg").touch()
    monkeypatch.setenv("MIEN_ROOTS", root.format(tmp=tmp_path))
    found = one(configuration.roots, "bad", "roots")
    assert f"{root.format(tmp=tmp_path)} of MIEN_ROOTS {reason}" in found.found
    assert mend in found.mend


def test_3_the_folder_of_photographs_is_empty_because_nothing_is_mounted_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_ROOTS", str(tmp_path))
    assert "mounted" in one(configuration.roots, "note", "roots").mend
    (tmp_path / "photo.jpg").touch()
    assert one(configuration.roots, "ok", "roots").found == f"{tmp_path} of MIEN_ROOTS can be read"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_3_the_folder_of_photographs_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    monkeypatch.setenv("MIEN_ROOTS", str(tmp_path / "closed"))
    assert "cannot be read (Permission denied)" in one(configuration.roots, "bad", "roots").found


def test_4_the_data_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").touch()
    monkeypatch.setenv("MIEN_DATA_DIR", str(tmp_path / "taken" / "data"))
    found = one(configuration.data_folder, "bad", "data folder")
    assert found.found == f"{tmp_path}/taken/data cannot be made in {tmp_path}/taken (Not a directory)"
    assert "MIEN_DATA_DIR" in found.mend
    assert run(["classify", str(tmp_path)]) == 1
    assert "Name another in MIEN_DATA_DIR." in capsys.readouterr().err


def test_5_the_disk_has_too_little_room(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_MIN_FREE_BYTES", str(shutil.disk_usage(data).total))
    found = one(configuration.data_folder, "bad", "disk")
    assert "(MIEN_MIN_FREE_BYTES)" in found.found
    assert "MIEN_DATA_DIR" in found.mend


class _MienElsewhere(BaseHTTPRequestHandler):
    """Answers as a Mien that is not of this data folder does."""

    def do_GET(self) -> None:
        """Called by the library."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "alive", "version": "0.1.0"}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Called by the library."""


@pytest.fixture
def mien_elsewhere() -> Iterator[int]:
    """The port of another Mien."""
    with HTTPServer(("127.0.0.1", 0), _MienElsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_6_the_port_is_taken(data: Path, monkeypatch: pytest.MonkeyPatch, mien_elsewhere: int) -> None:
    monkeypatch.setenv("MIEN_PORT", str(mien_elsewhere))
    found = one(configuration.port, "bad", "port")
    assert found.found == f"another Mien, with another data folder, answers at 127.0.0.1:{mien_elsewhere}"
    assert "MIEN_PORT=0" in found.mend
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("MIEN_PORT", str(port))
        found = one(configuration.port, "bad", "port")
        assert f"Port {port} of 127.0.0.1 cannot be used (Address already in use)." in found.found
    assert one(configuration.port, "ok", "port").found == f"127.0.0.1:{port} is free"


def test_6_the_address_is_not_this_machines(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_HOST", "192.0.2.7")  # RFC 5737: nobody's
    assert "MIEN_HOST '192.0.2.7' cannot be used" in one(configuration.port, "bad", "port").found


@pytest.mark.usefixtures("own_signals")
def test_7_others_could_reach_it_without_a_key(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIEN_HOST", EVERYBODY)
    monkeypatch.setenv("MIEN_PORT", "0")
    sentence = "MIEN_HOST is 0.0.0.0, which others can reach, but there is no API key."
    assert one(services.reach, "bad", "reach").found.startswith(sentence)
    assert run(["up"]) == 1  # at once, not after the front end has tried three times
    assert f"mien: {sentence}" in capsys.readouterr().err
    assert run(["keys", "create", "me"]) == 0
    assert "need an API key" in one(services.reach, "ok", "reach").found


def test_7_there_is_no_ledger_yet_to_hold_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_HOST", EVERYBODY)
    assert "`mien migrate`, then `mien keys create NAME`" in one(services.reach, "bad", "reach").mend


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://mien:hunter2hunter2@127.0.0.1:{port}/mien", "Connection refused"),
        ("sqlite:////nowhere/at/all.sqlite3", "unable to open database file"),
        ("mien.sqlite3", "is not the address of a database"),
        ("postgresql://mien@db:port/mien", "is not the address of a database"),
        ("mysql://db/mien", "'mysql' is not supported"),
    ],
)
def test_8_the_database_does_not_answer(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIEN_DATABASE_URL", url.format(port=free_port()))
    found = one(services.database, "bad", "database")
    assert reason in found.found
    assert "MIEN_DATABASE_URL" in found.mend
    assert list(services.workers(load_settings())) == []
    assert run(["migrate"]) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1
    assert "hunter2" not in found.found + said


def test_8_the_database_is_none(data: Path) -> None:
    (data / "mien.sqlite3").write_text("These are not the pages of a database, but a text that took its name.")
    for left in data.glob("mien.sqlite3-*"):
        left.unlink()
    assert "The database cannot be read (file is not a database)" in one(services.database, "bad", "database").found


def test_8_the_database_was_not_migrated(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "mien.sqlite3").unlink()
    sqlite3.connect(data / "mien.sqlite3").execute("CREATE TABLE something_else (id INTEGER)")
    assert one(services.database, "bad", "database").mend == "run `mien migrate`"
    assert run(["keys", "list"]) == 1
    assert capsys.readouterr().err == "mien: The ledger is new or of another version; run `mien migrate` first.\n"


@pytest.mark.parametrize(
    ("url", "reason"),
    [("redis://:hunter2@127.0.0.1:{port}/0", "does not answer"), ("localhost:6379", "is no address of Redis")],
)
def test_9_the_broker_does_not_answer(data: Path, url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_BROKER_URL", url.format(port=free_port()))
    found = one(services.broker, "bad", "broker")
    assert reason in found.found
    assert "MIEN_BROKER_URL" in found.mend
    assert "hunter2" not in found.found
    assert "docs/operator.md, In production" in one(services.workers, "bad", "workers").mend


def test_10_the_model_is_not_installed_or_damaged(data: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "models").unlink()
    shutil.copytree(prepared / "models", data / "models")
    weights = next((data / "models").rglob("model.onnx"))
    content = bytearray(weights.read_bytes())
    content[1000] ^= 255
    weights.write_bytes(content)
    found = one(engine.trial, "bad", "engine")
    assert str(weights.parent) in found.found
    assert "remove that folder" in found.mend
    monkeypatch.setenv("MIEN_MODEL", "vit")
    found = one(engine.trial, "bad", "engine")
    assert found.found.startswith("There is no model 'vit'; installed: default@")
    assert "MIEN_MODEL=default" in found.mend


# and what comes next


def test_jobs_wait_and_nothing_runs(waiting_job: str) -> None:
    found = one(services.workers, "note", "workers")
    assert "1 unfinished job waits" in found.found
    assert "`mien up`" in found.mend


def test_more_engines_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_ENGINES", "1024")
    assert re.search(r"MIEN_ENGINES=\d+$", one(machine.memory, "note", "memory").mend)


def test_too_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_ENGINES", "2")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        assert "ulimit -n 1024" in one(machine.open_files, "bad", "open files").mend
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(gpu_count() > 0, reason="there is one")
def test_a_gpu_is_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_DEVICE", "cuda")
    assert "MIEN_DEVICE=auto" in one(machine.processor, "bad", "gpu").mend


def test_mien_url_names_what_is_no_mien(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_URL", f"http://127.0.0.1:{free_port()}")
    assert "unset MIEN_URL" in one(services.remote, "bad", "server").mend


def test_everything_in_order_is_0(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIEN_PORT", "0")
    assert run(["doctor", "--json"]) == 0
    states = {finding["name"]: finding["state"] for finding in json.loads(capsys.readouterr().out)}
    looked_at = {"python", "settings", "data folder", "disk", "roots", "database", "broker", "running", "port"}
    assert looked_at | {"reach", "formats", "processor", "memory", "open files", "engine", "int8"} <= states.keys()
    assert set(states.values()) <= {"ok", "note"}


def test_the_page_lists_these_ten() -> None:
    page = (ROOT / "docs" / "operator.md").read_text()
    listed = re.findall(r"^\| (\d+)\. ", page, re.MULTILINE)
    made = {found for name in globals() if (found := "".join(re.findall(r"^test_(\d+)_", name)))}
    assert listed == sorted(made, key=int) == [str(number) for number in range(1, 11)]


# the block for a bug report

SECRETS = (
    "nightingale",  # what everything that must not appear is called here
    "hunter2hunter2",
    "5f3a9c1e7b2d8064",
)


def test_the_report_names_nobody_and_nothing(
    waiting_job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = tmp_path / "nightingale-data"
    with Database(waiting_job).write() as connection:
        connection.execute(
            images.update().values(
                path_text="nightingale.jpg", outcome="failed", error_code="unsupported_format",
                error="nightingale.jpg is no image",
            )
        )  # fmt: skip
        connection.execute(
            jobs.update().values(
                source_path=b"/nightingale/photos", source_text="/nightingale/photos", model="nightingale-model",
                status="failed", error_code="model_missing", error="There is no /nightingale/photos/a.jpg",
                metadata={"subject": "nightingale"}, owner="nightingale",
            )
        )  # fmt: skip
    monkeypatch.setenv("USER", "nightingale")
    monkeypatch.setenv("HOME", str(places))
    monkeypatch.setenv("MIEN_DATA_DIR", str(places))
    monkeypatch.setenv("MIEN_DATABASE_URL", waiting_job)
    monkeypatch.setenv("MIEN_BROKER_URL", "redis://nightingale:hunter2hunter2@nightingale.invalid:6379/0")
    monkeypatch.setenv("MIEN_ROOTS", str(places))
    monkeypatch.setenv("MIEN_URL", "http://nightingale.invalid")
    monkeypatch.setenv("MIEN_API_KEY", "mien_5f3a9c1e7b2d8064")
    monkeypatch.setenv("MIEN_MODEL", "nightingale-model")
    monkeypatch.setenv("MIEN_NIGHTINGALE", "nightingale")
    looks = (configuration.roots, services.database, services.workers, configuration.data_folder)
    findings = [*configuration.variables(), *(found for look in looks for found in look(load_settings()))]
    facts = facts_of(findings)
    show_report(facts)
    block = capsys.readouterr().out
    for shown in (block, json.dumps(facts)):
        assert not [secret for secret in SECRETS if secret in shown.lower()]
        assert str(ROOT) not in shown
        assert str(tmp_path) not in shown
        assert "/" not in shown.replace("```", "")
        for name in (platform.node(), getpass.getuser()):
            assert not re.search(rf"\b{re.escape(name)}\b", shown) or name in ("localhost", "root")
    assert "errors and notices of the last 50 jobs: model_missing 1" in block
    assert "images failed in the last 50 jobs: unsupported_format 2" in block
    assert "MIEN_API_KEY" in block  # that it is set, not what it is
    assert "model revision: unusable (unknown_model)" in block


def test_the_report_says_what_helps(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_report(
        facts_of([Finding("bad", "disk", "full"), Finding("note", "roots", "empty"), Finding("ok", "port", "")])
    )
    block = capsys.readouterr().out
    lines = dict(line.split(": ", 1) for line in block.splitlines()[1:-1])
    assert block.startswith("```\n")
    assert block.endswith("\n```\n")
    assert lines["findings"] == "bad disk, note roots"
    assert lines["precision"] == "fp32"
    assert re.fullmatch(r"[0-9a-f]{64} \(shipped\)", lines["model revision"])
    assert re.match(r"SQLite 3\.[0-9.]+, schema \d{4}$", lines["database"])
    for package in ("numpy", "onnxruntime", "pillow", "celery", "sqlalchemy"):
        assert re.search(rf"\b{package} \d", lines["packages"])
