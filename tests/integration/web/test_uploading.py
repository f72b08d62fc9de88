"""A folder sent to a real server: what is refused, what is there already, a server that is away for a while."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

from mien import uploading
from mien.client import Client
from mien.database import Database
from mien.errors import ConflictError, NoSpaceError, UnavailableError
from mien.uploading import Choice, FolderUpload
from tests.support.redis import free_port
from tests.support.uploads import facts, stored
from tests.support.web import close_app, make_settings
from web.app import create_app

pytestmark = pytest.mark.long


@pytest.fixture
def app(tmp_path: Path, db: Database) -> Iterator[Flask]:
    """A front end that takes images of up to 2,000 bytes."""
    settings = make_settings(
        tmp_path, database_url=db.url.render_as_string(hide_password=False), max_file_bytes=2000, web_threads=64
    )
    app = create_app(settings)
    yield app
    close_app(app)


@pytest.fixture
def serve(app: Flask) -> Iterator[Callable[[], Client]]:
    """Starts the server, and gives a client of it; before that its address is known, but nobody answers there."""
    port, ends = free_port(), []

    def start() -> Client:
        server = make_server("127.0.0.1", port, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ends.append(server.shutdown)
        return Client(f"http://127.0.0.1:{port}")

    start.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield start
    for end in ends:
        end()


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """Files, some of which no server takes."""
    files = {f"{'sub/' * (n % 3)}{n:03d}.jpg": b"%d" % n * 100 for n in range(120)}
    for name, data in files.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(data)
    return tmp_path / "mine", files


def test_one_image_that_is_refused_holds_back_no_other(
    serve: Callable[[], Client], folder: tuple[Path, dict[str, bytes]]
) -> None:
    root, files = folder
    (root / "too large.jpg").write_bytes(b"x" * 2001)
    (root / "gone.jpg").symlink_to("/nowhere")
    (root / "notes.txt").write_bytes(b"x")
    client = serve()
    job = client.create_draft().id
    done = FolderUpload(client.twin, job, Choice(os.fsencode(root))).run()
    assert dict(done.refused).keys() == {"too large.jpg", "gone.jpg"}
    assert "2,000 bytes" in dict(done.refused)["too large.jpg"]
    assert (done.files, done.size) == (len(files), sum(map(len, files.values())))
    assert {item.file: (item.bytes, item.sha256) for item in client.uploads(job)} == facts(files)

    (root / "000.jpg").write_bytes(b"changed")
    (root / "new.jpg").write_bytes(b"new")
    arrived = {item.file: (item.bytes, item.sha256) for item in client.uploads(job)}
    again = FolderUpload(client.twin, job, Choice(os.fsencode(root))).run(arrived)
    assert (again.there_already, again.files) == (len(files) - 1, len(files) + 1)
    changed = {**files, "000.jpg": b"changed", "new.jpg": b"new"}
    assert {item.file: (item.bytes, item.sha256) for item in client.uploads(job)} == facts(changed)


def test_a_server_that_is_away_is_waited_for_but_not_for_ever(
    app: Flask, serve: Callable[[], Client], folder: tuple[Path, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "PATIENCE_S", 0.5)
    client = app.test_client()
    job = client.post("/api/v1/jobs", json={"source": {"type": "upload"}}).json["id"]
    connect = partial(Client, serve.url)  # type: ignore[attr-defined]
    choice = Choice(os.fsencode(folder[0]))
    with pytest.raises(UnavailableError):
        FolderUpload(connect, job, choice).run()
    monkeypatch.setattr(uploading, "PATIENCE_S", 60)
    comes_back = threading.Thread(target=lambda: (time.sleep(1), serve()))
    comes_back.start()
    assert FolderUpload(connect, job, choice).run().files == len(folder[1])
    comes_back.join()


def test_what_concerns_the_whole_job_ends_the_upload(
    app: Flask, serve: Callable[[], Client], folder: tuple[Path, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    job = client.create_draft().id
    upload = FolderUpload(client.twin, job, Choice(os.fsencode(folder[0])))
    with monkeypatch.context() as full:
        usage = os.statvfs("/")
        full.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0, "total": usage.f_blocks})())
        with pytest.raises(NoSpaceError):
            upload.run()
    assert stored(app) == []
    client.upload(job, {"a.jpg": b"a"})
    client.submit(job)
    with pytest.raises(ConflictError, match="only a draft"):
        FolderUpload(client.twin, job, Choice(os.fsencode(folder[0]))).run()
    assert stored(app) == [b"a"]
