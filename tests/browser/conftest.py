"""A whole Mien (front end, broker, control, worker) and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from PIL import Image

from mien.client import Client
from mien.models import ModelStore
from tests.support.machine import lacking
from tests.support.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]
START_S = 90
DARK, BRIGHT = 12, 9


@dataclass(frozen=True)
class Running:
    """A Mien that runs, and its one root."""

    url: str
    data: Path
    photos: Path
    process: psutil.Process

    @contextmanager
    def worker_asleep(self) -> Iterator[None]:
        """Nothing is classified meanwhile."""
        workers = [
            child for child in self.process.children(recursive=True) if "classify.cpu" in " ".join(child.cmdline())
        ]
        assert workers
        for worker in workers:
            worker.suspend()
        try:
            yield
        finally:
            for worker in workers:
                worker.resume()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright squares in two folders, one file that is no image, and one broken one."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "set" / "inner").mkdir(parents=True)
    for number in range(DARK):
        Image.new("RGB", (64, 64), (10 + number, 20, 20)).save(folder / "set" / f"dark {number:02d}.png")
    for number in range(BRIGHT):
        Image.new("RGB", (64, 64), (250, 240 - number, 240)).save(folder / "set" / "inner" / f"=bright {number}.png")
    (folder / "set" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is where it ends")
    (folder / "set" / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="session")
def mien(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[Running]:
    """``mien up`` on a free port, with a model whose answers are known."""
    data = tmp_path_factory.mktemp("mien")
    model = ModelStore(data / "models").install(make_tiny_model(data / "source"))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    environment = {
        **os.environ,
        "MIEN_DATA_DIR": str(data),
        "MIEN_PORT": str(port),
        "MIEN_MODEL": f"{model.name}@{model.revision}",
        "MIEN_ENGINES": "1",
    }
    command = [sys.executable, "-m", "cli.main", "up", str(photos)]
    with (data / "up.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + START_S
    client = Client(url)
    while not (client.is_alive() and client.workers()):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"Mien did not start: {(data / 'up.log').read_text()}")
        time.sleep(0.2)
    yield Running(url, data, photos, psutil.Process(process.pid))
    process.send_signal(signal.SIGINT)
    process.wait(60)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium, without a window."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        lacking("Chromium is not installed (Debian: chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("Playwright is not installed (`pip install playwright`)")
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, mien: Running) -> Iterator[Any]:
    """A fresh window. What goes wrong in it, breaks the content policy or leaves our origin fails the test."""
    with watched_page(browser, mien.url) as window:
        yield window


@contextmanager
def watched_page(browser: Any, url: str, **context_options: Any) -> Iterator[Any]:
    """A window of its own (``context_options`` as Playwright takes them) that must stay without any trouble.

    Append a part of a message to its ``expected`` list where a test makes the trouble itself.
    """
    context = browser.new_context(base_url=url, **context_options)
    window = context.new_page()
    # a server with no hands free for a picture is asked again by the page
    window.expected = ["status of 4", "status of 503"]
    troubles: list[str] = []
    origin = urlsplit(url).netloc
    window.on("pageerror", lambda error: troubles.append(str(error)))
    window.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
    window.on(
        "request",
        lambda sent: troubles.append(f"asked {sent.url}") if urlsplit(sent.url).netloc not in ("", origin) else None,
    )
    try:
        yield window
    finally:
        context.close()
    assert [t for t in troubles if not any(part in t for part in window.expected)] == []


@pytest.fixture(scope="session")
def people(photos: Path, shared: Path) -> Path:
    """Some real photographs, in two sub-folders of the root, one of them with a name that is markup."""
    folder = photos / "people"
    for number, photo in enumerate(sorted((shared / "photos").glob("*.jpg"))[:16]):
        place = folder / ("indoors" if number % 2 else "<b>out & about</b>".replace("/", "_"))
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, place / photo.name)
    (folder / "indoors" / "cut.jpg").write_bytes(photo.read_bytes()[:900])
    return folder


@pytest.fixture(scope="session")
def job_of_people(mien: Running, people: Path) -> str:
    """A finished job on them."""
    with Client(mien.url) as client:
        job = client.submit_folder(people)
        *_, job = client.wait(job.id)
    assert job.counts.ok > 10
    return str(job.id)


@pytest.fixture(scope="session")
def large_job(mien: Running) -> str:
    """A finished job of 100,000 images whose photographs are not there."""
    import random

    from benchmarks.queries import write_job
    from mien.database import Database

    db = Database(f"sqlite:///{mien.data / 'mien.sqlite3'}")
    try:
        return write_job(db, 100_000, 0, random.Random(3))
    finally:
        db.dispose()
