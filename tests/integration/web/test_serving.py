"""The front end under gunicorn, as it is run: one process, threads, and a gentle end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mien.client import Client
from mien.database import Database
from tests.support.ledger import expanded_job, ok, work_off
from tests.support.web import make_settings

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server(tmp_path: Path, db: Database) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """gunicorn in a process of its own, and its address."""
    settings = make_settings(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    environment = {
        **os.environ,
        "MIEN_DATA_DIR": str(settings.data_dir),
        "MIEN_ROOTS": str(tmp_path / "photos"),
        "MIEN_DATABASE_URL": db.url.render_as_string(hide_password=False),
        "MIEN_BROKER_URL": settings.broker_url,
        "MIEN_PORT": str(port),
        "MIEN_WEB_THREADS": "8",
    }
    command = [sys.executable, "-m", "gunicorn", "web.app:create_app()", "-c", "python:web.serving"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 60
    while not Client(url).is_alive():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    yield process, url
    if process.poll() is None:
        process.kill()
        process.wait()


def test_it_ends_gently(server: tuple[subprocess.Popen[bytes], str], db: Database, tmp_path: Path) -> None:
    process, url = server
    job = expanded_job(db, tmp_path / "photos", 2000, chunk_size=1000)
    work_off(db, ok, limit=1)
    answers: list[int] = []
    waiting = threading.Thread(
        target=lambda: answers.append(requests.get(f"{url}/api/v1/jobs/{job}?wait=30", timeout=60).status_code)
    )
    waiting.start()
    time.sleep(1)
    assert waiting.is_alive()
    with requests.get(f"{url}/api/v1/jobs/{job}/results.jsonl", stream=True, timeout=60) as download:
        lines = download.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        waiting.join(10)
        assert answers == [200]  # a long poll ends at once, with an answer
        assert 1 + sum(1 for _ in lines) == 2000  # a download is finished
    assert process.wait(30) == 0


def test_a_cut_export_cannot_be_taken_for_a_whole_one(
    server: tuple[subprocess.Popen[bytes], str], db: Database, tmp_path: Path
) -> None:
    _, url = server
    job = expanded_job(db, tmp_path / "photos", 12_000, chunk_size=1500)
    work_off(db, ok)
    plain = {"Accept-Encoding": "identity"}  # compressed it would all be on its way before the deletion
    with requests.get(f"{url}/api/v1/jobs/{job}/results.csv", headers=plain, stream=True, timeout=60) as download:
        blocks = download.iter_content(1024)
        next(blocks)
        requests.delete(f"{url}/api/v1/jobs/{job}", timeout=10).raise_for_status()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(blocks)
