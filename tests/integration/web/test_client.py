"""The client against a real server on a real port."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

from mien.client import Client
from mien.database import Database
from mien.errors import (
    ConflictError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
    SettingsError,
    SourceError,
    UnauthorizedError,
    UnavailableError,
)
from mien.keys import create_key
from tests.support.ledger import bad, control, expanded_job, ok, work_off


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    """Where the front end listens."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def mien(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def test_from_submission_to_file(mien: Client, db: Database, photos: Path, tmp_path: Path) -> None:
    for number in range(6):
        (photos / f"{number}.jpg").write_bytes(b"")
    job = mien.submit_folder(photos, faces="whole", metadata={"x": 1}, idempotency_key="k")
    assert mien.submit_folder(photos, faces="whole", metadata={"x": 1}, idempotency_key="k").id == job.id
    assert (job.status, job.options.faces, job.metadata) == ("queued", "whole", {"x": 1})

    states = []
    watcher = threading.Thread(target=lambda: states.extend(Client(mien.url).wait(job.id)), daemon=True)
    watcher.start()
    control(db, chunk_size=2).expand()
    work_off(db, lambda image: bad(image) if image.path == b"3.jpg" else ok(image))
    watcher.join(30)
    assert states[-1].status == "completed"
    assert [state.done for state in states] == sorted(state.done for state in states)

    target = tmp_path / "out.csv"
    target.write_text("old")
    saved = mien.download(job.id, "results.csv", target)
    assert saved.complete and saved.bytes == target.stat().st_size
    assert target.read_text().count("\n") == 7
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    memory = io.BytesIO()
    assert mien.download(job.id, "errors.csv", memory, spreadsheet=True).bytes == len(memory.getvalue())
    results = list(mien.results(job.id, page_size=2))
    assert sorted(result.file for result in results) == [f"{n}.jpg" for n in range(6)]
    assert [r.file for r in mien.results(job.id, outcome="failed")] == ["3.jpg"]
    emotions = {result.file: [face.emotion for face in result.faces] for result in results}
    assert emotions == {f"{n}.jpg": [] if n == 3 else ["happy"] for n in range(6)}
    assert mien.summary(job.id).faces["happy"] == 5
    assert mien.provenance(job.id)["job"] == job.id
    assert "Mien" in mien.cite(job.id).methods
    assert mien.retry(job.id).status == "queued"
    assert mien.cancel(job.id).status == "cancelling"
    receipt = mien.delete(job.id)
    assert (receipt.kind, receipt.job, receipt.finished_at) == ("job", job.id, None)
    assert mien.job(job.id).status == "deleting"
    control(db).purge()
    with pytest.raises(NotFoundError):
        mien.job(job.id)


def test_lists(mien: Client, photos: Path) -> None:
    ids = [mien.submit_folder(photos).id for _ in range(3)][::-1]
    assert [job.id for job in mien.jobs()] == ids
    assert [job.id for job in mien.jobs(limit=2)] == ids[:2]
    assert list(mien.jobs(status="completed")) == []
    assert [model.name for model in mien.models()] == ["tiny"]
    assert mien.workers() == []
    assert mien.is_alive()


def test_errors_are_the_servers_own(mien: Client, url: str, db: Database, photos: Path) -> None:
    with pytest.raises(SourceError) as wrong_folder:
        mien.submit_folder("/etc")
    assert (wrong_folder.value.code, wrong_folder.value.field) == ("source_outside_roots", "source.path")
    with pytest.raises(ModelError) as wrong_model:
        mien.submit_folder(photos, model="nobody")
    assert wrong_model.value.code == "unknown_model"
    with pytest.raises(InvalidRequestError) as invalid:
        mien.submit_folder(photos, detect_size=1)
    assert invalid.value.field == "options.detect_size"
    with pytest.raises(NotFoundError) as unknown:
        mien.job("../jobs")
    assert unknown.value.code in ("unknown_job", "not_found")
    with pytest.raises(ConflictError) as conflict:
        mien.retry(mien.submit_folder(photos).id)
    assert conflict.value.code == "job_not_retryable"
    _, secret = create_key(db, "first")
    with pytest.raises(UnauthorizedError):
        list(mien.jobs())
    assert len(list(Client(url, secret).jobs())) == 0


def test_nobody_there_is_said_clearly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}")
    with pytest.raises(UnavailableError, match="mien up") as nobody:
        list(client.jobs())
    assert nobody.value.code == "no_server"
    assert not client.is_alive()
    with pytest.raises(UnavailableError):
        list(client.wait("x", patience_s=0))


def test_another_server_is_not_taken_for_mien() -> None:
    other = Flask("other")
    other.add_url_rule("/api/v1/jobs", view_func=lambda: "<h1>Welcome</h1>")
    server = make_server("127.0.0.1", 0, other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(UnavailableError) as found:
            list(client.jobs())
        assert found.value.code == "not_a_mien"
        with pytest.raises(UnavailableError):
            client.models()
        assert not client.is_alive()
    finally:
        server.shutdown()


def test_an_address_has_to_be_one() -> None:
    with pytest.raises(SettingsError):
        Client("127.0.0.1:8616")


def test_a_broken_download_leaves_the_old_file(mien: Client, db: Database, photos: Path, tmp_path: Path) -> None:
    job = expanded_job(db, photos, 3000, chunk_size=1000)
    work_off(db, ok)
    target = tmp_path / "out.csv"
    target.write_text("old")
    deleted = []

    def delete_under_it(_: int) -> None:
        if not deleted:
            deleted.append(mien.url)
            Client(mien.url).delete(job)
            control(db).purge()

    with pytest.raises(UnavailableError) as broken:
        mien.download(job, "results.csv", target, progress=delete_under_it)
    assert broken.value.code == "download_broken"
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
