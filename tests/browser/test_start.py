"""A person who brings photographs: drops a folder, a zip, one photograph; looks around for a folder; loses the line."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mien.client import Client
from tests.browser.axe import assert_accessible
from tests.browser.conftest import BRIGHT, DARK, Running

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Images in sub-folders, one with a nasty name, and a file that is none."""
    folder = tmp_path / "album"
    for number in range(60):
        place = folder / f"part {number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number, 40, 90)).save(place / f"{number:02d}.png")
    Image.new("RGB", (64, 64), (200, 40, 90)).save(folder / 'a "quoted" & <b>.png')
    (folder / "letter.txt").write_text("dear all")
    return folder


def choose(page: Any, which: str, what: Path | list[Path]) -> None:
    page.goto("/")
    page.get_by_text("Each image is a face").click()
    page.set_input_files(which, what)


def test_a_folder_is_sent_with_its_sub_folders(page: Any, mien: Running, album: Path) -> None:
    choose(page, "#folder-files", album)
    page.get_by_text("61 photographs").wait_for()
    assert "1 other file is left out" in page.locator("#skipped summary").inner_text()
    assert_accessible(page)
    page.get_by_role("button", name="Send and read").click()
    page.wait_for_url(re.compile("/jobs/"), timeout=PATIENCE_MS)
    page.locator('#job[data-status="completed"]').wait_for(timeout=PATIENCE_MS)
    assert page.get_by_role("heading", level=1).inner_text() == "album"
    with Client(mien.url) as client:
        files = {image.file for image in client.results(page.url.rpartition("/")[2])}
    assert len(files) == 61
    assert 'a "quoted" & <b>.png' in files and "part 0/00.png" in files


def test_a_lost_line_is_taken_up_again(page: Any, mien: Running, album: Path) -> None:
    page.expected += ["ERR_INTERNET_DISCONNECTED", "ERR_FAILED"]
    choose(page, "#folder-files", album)
    page.get_by_text("61 photographs").wait_for()
    sent = []
    page.on("request", lambda request: sent.append(request) if "/images" in request.url else None)
    page.context.set_offline(True)
    page.get_by_role("button", name="Send and read").click()
    page.locator("#connection").get_by_text("connection is lost").wait_for()
    page.context.set_offline(False)
    page.wait_for_url(re.compile("/jobs/"), timeout=PATIENCE_MS)
    page.locator('#job[data-status="completed"]').wait_for(timeout=PATIENCE_MS)


def test_what_has_arrived_is_not_sent_again(page: Any, mien: Running, album: Path) -> None:
    choose(page, "#folder-files", album)
    page.get_by_text("61 photographs").wait_for()
    made = page.evaluate(
        """async () => {
          const job = {source: {type: "upload"}, options: {faces: "whole"}};
          const asked = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(job)};
          const made = await (await fetch("/api/v1/jobs", asked)).json();
          localStorage.setItem("mien-draft", JSON.stringify({id: made.id, name: "album"}));
          return made.id;
        }"""
    )
    first = album / "part 0" / "00.png"
    page.evaluate(
        "async ([id, bytes]) => fetch(`/api/v1/jobs/${id}/images?path=${encodeURIComponent('part 0/00.png')}`, "
        "{method: 'PUT', body: new Uint8Array(bytes)})",
        [made, list(first.read_bytes())],
    )
    page.get_by_role("button", name="Send and read").click()
    page.get_by_text("1 had arrived before").wait_for()
    page.wait_for_url(re.compile(f"/jobs/{made}"), timeout=PATIENCE_MS)


def test_a_zip(page: Any, mien: Running, album: Path, tmp_path: Path) -> None:
    archive = tmp_path / "album.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(album.rglob("*.*")):
            packed.write(file, file.relative_to(album))
    choose(page, "#files", archive)
    page.get_by_text("An archive of").wait_for()
    page.get_by_role("button", name="Send and read").click()
    page.wait_for_url(re.compile("/jobs/"), timeout=PATIENCE_MS)
    page.locator('#job[data-status="completed"]').wait_for(timeout=PATIENCE_MS)
    assert page.locator("#job").get_attribute("data-total") == "61"


def test_one_photograph_is_answered_at_once(page: Any, mien: Running, people: Path) -> None:
    page.goto("/")
    page.set_input_files("#files", next(people.rglob("0*.jpg")))
    page.locator("#look .probabilities").first.wait_for(timeout=PATIENCE_MS)
    assert page.locator("#look .boxes .box").count() >= 1
    painted = """() => {
      const canvas = document.getElementById("look-canvas");
      const copy = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
      copy.drawImage(canvas, canvas.width / 2, canvas.height / 2, 1, 1, 0, 0, 1, 1);
      return copy.getImageData(0, 0, 1, 1).data[3] > 0;
    }"""
    page.wait_for_function(painted)
    assert_accessible(page)


def test_one_file_that_is_no_image(page: Any, mien: Running, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    page.goto("/")
    page.set_input_files("#files", bad)
    page.locator("#sending-error").get_by_text("ends too early").wait_for(timeout=PATIENCE_MS)
    page.set_input_files("#files", [])
    page.set_input_files("#files", __file__)
    page.get_by_text("No photograph was among these files.").wait_for()


def test_looking_around_for_a_folder(page: Any, mien: Running) -> None:
    page.goto("/")
    page.get_by_role("button", name="Browse…").click()
    dialog = page.get_by_role("dialog", name="Choose a folder")
    dialog.get_by_role("link", name=re.compile("^set")).click()
    dialog.get_by_text(f"{DARK + BRIGHT + 1} images").wait_for()
    assert_accessible(page, "the folder dialog")
    dialog.get_by_role("link", name=re.compile("inner")).click()
    dialog.get_by_text(re.compile(f"^{BRIGHT} images")).wait_for()
    dialog.get_by_role("button", name="Take this folder").click()
    assert page.locator("#path").input_value() == str(mien.photos / "set" / "inner")
    page.locator("#estimate").get_by_text(f"{BRIGHT} images take").wait_for()
    refused = page.request.get("/browse?path=/etc")
    assert refused.status == 422 and "outside the folders" in refused.text()
    climbed = page.request.get(f"/browse?path={mien.photos}/../")
    assert climbed.status == 422


def test_a_lost_server_shows_a_banner_and_recovers(page: Any, mien: Running) -> None:
    page.expected += ["ERR_INTERNET_DISCONNECTED"]
    page.goto("/")
    page.context.set_offline(True)
    page.locator("#connection").get_by_text("does not answer").wait_for()
    page.context.set_offline(False)
    page.locator("#connection").get_by_text("answers again").wait_for(timeout=PATIENCE_MS)
