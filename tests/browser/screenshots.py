"""The pictures of the pages in the documentation: ``python -m tests.browser.screenshots``.

Starts a Mien of its own with the shipped model on the samples, and writes docs/screenshots/PAGE-THEME.webp. With
``--photos FOLDER`` it looks at other photographs (for looking only: pictures in docs/ show the samples alone).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from mien.client import Client

ROOT = Path(__file__).parents[2]
THEMES = ("light", "dark")
WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 780}
QUALITY = 72


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=ROOT / "samples")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.gettempdir()) / "mien-pictures"  # its name can be read on the pages
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    with running(scratch, arguments.photos) as url:
        album = scratch / "photos"
        with Client(url) as client:
            *_, job = client.wait(client.submit_folder(album).id)
        shoot(url, job.id, arguments.out)
    shutil.rmtree(scratch)


def shoot(url: str, job: str, out: Path) -> None:
    """Every page in both themes; the first also as on a phone."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for theme in THEMES:
            for name, path, size, prepare in pages(url, job):
                context = browser.new_context(base_url=url, color_scheme=theme, viewport=size, device_scale_factor=1)
                page = context.new_page()
                page.goto(path)
                if prepare:
                    prepare(page)
                page.wait_for_load_state("networkidle")
                page.wait_for_timeout(400)
                picture = Image.open(BytesIO(page.screenshot()))
                target = out / f"{name}-{theme}.webp"
                picture.save(target, quality=QUALITY, method=6)
                sys.stdout.write(f"{target.name}: {target.stat().st_size // 1000} kB\n")
                context.close()
        browser.close()


def pages(url: str, job: str) -> list[tuple[str, str, dict[str, int], Any]]:
    """Name, address, size of the window, what to do before the picture is taken."""
    with Client(url) as client:
        first = next(image for image in client.results(job, outcome="ok") if len(image.faces) > 1)
        check, mend = client.begin_review(job, size=50, seed=3), client.begin_review(job, "mend")
    return [
        ("start", "/", WIDE, None),
        ("start-phone", "/", PHONE, None),
        ("one-photograph", "/", WIDE, answer_at_once),
        ("job", f"/jobs/{job}", {**WIDE, "height": 1150}, None),
        ("gallery", f"/jobs/{job}/gallery", WIDE, None),
        ("gallery-phone", f"/jobs/{job}/gallery?outcome=ok", PHONE, None),
        ("image", f"/jobs/{job}/gallery?outcome=ok", WIDE, lambda page: open_image(page, first.file)),
        ("check", f"/reviews/{check.id}?rater=Ada", WIDE, None),
        ("mend", f"/reviews/{mend.id}?rater=Ada", WIDE, None),
        ("review", f"/jobs/{job}/review", WIDE, None),
        ("models", "/models", WIDE, None),
        ("model", "/models/default", WIDE, None),
        ("system", "/system", WIDE, None),
        ("sign-in", "/sign-in", WIDE, None),
    ]


def answer_at_once(page: Any) -> None:
    """Drop one photograph."""
    page.set_input_files("#files", ROOT / "samples" / "two_people.png")
    page.locator("#look .probabilities").first.wait_for()


def open_image(page: Any, file: str) -> None:
    """Go to the page of an image of the gallery."""
    address = page.locator(f'.tile a[title="{file}"]').get_attribute("href")
    page.goto(address)


@contextmanager
def running(scratch: Path, photos: Path) -> Iterator[str]:
    """``mien up`` on a copy of the photographs, in sub-folders and with a damaged file among them."""
    album = scratch / "photos"
    files = sorted(file for file in photos.rglob("*") if file.suffix.lower() in (".jpg", ".png", ".webp", ".avif"))
    for number, file in enumerate(files):
        place = album / ("expedition", "portraits")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / file.name)
    (album / "expedition" / "interrupted.jpg").write_bytes(files[0].read_bytes()[:5000])
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    environment = {**os.environ, "MIEN_DATA_DIR": str(scratch / "data"), "MIEN_PORT": str(port)}
    with (scratch / "log").open("wb") as log:
        command = [sys.executable, "-m", "cli.main", "up", str(album)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        with Client(url) as client:
            until = time.monotonic() + 90
            while not (client.is_alive() and client.workers()):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit((scratch / "log").read_text())
                time.sleep(0.3)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


if __name__ == "__main__":
    main()
