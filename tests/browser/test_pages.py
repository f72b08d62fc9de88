"""A person at the page: submit a folder, watch it to its end, take the results; with script and without."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mien.client import Client
from mien.keys import create_key, revoke_key
from tests.browser.conftest import BRIGHT, DARK, Running

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000


def submit(page: Any, folder: Path) -> str:
    """Fill in the form; gives the job's id."""
    page.goto("/")
    page.get_by_label("Path of the folder").fill(str(folder))
    page.get_by_text("Each image is a face").click()
    page.get_by_role("button", name="Read expressions").click()
    page.wait_for_url(re.compile("/jobs/"))
    return str(page.url).rpartition("/")[2]


def wait_until_completed(page: Any) -> None:
    page.locator('#job[data-status="completed"]').wait_for(timeout=PATIENCE_MS)


def test_submit_watch_download(page: Any, mien: Running, tmp_path: Path) -> None:
    loads: list[str] = []
    with mien.worker_asleep():
        job = submit(page, mien.photos / "set")
        page.on("framenavigated", lambda frame: loads.append(frame.url))
        page.get_by_text(f"0 of {DARK + BRIGHT + 1}").wait_for(timeout=PATIENCE_MS)
    wait_until_completed(page)
    assert loads == []  # without reloading
    assert page.locator("#announce").text_content() == "The job is completed."
    assert page.title().endswith("completed - Mien")
    text = page.locator("main").inner_text()
    assert "1 other file was passed over" in text
    assert page.locator("#chart-title").text_content() == (
        f"{DARK + BRIGHT} faces: dark {DARK} (57.1%), bright {BRIGHT} (42.9%), grey 0 (0.0%)."
    )
    with page.expect_download() as waiting:
        page.get_by_role("link", name="results.csv").click()
    assert waiting.value.suggested_filename == f"mien-{job}-results.csv"
    target = tmp_path / "results.csv"
    waiting.value.save_as(target)
    rows = list(csv.DictReader(target.open(newline="")))
    assert len(rows) == DARK + BRIGHT + 1
    assert {row["emotion"] for row in rows if row["file"].startswith("dark")} == {"dark"}
    assert {row["emotion"] for row in rows if row["file"].startswith("inner/")} == {"bright"}
    assert [row["status"] for row in rows if row["file"] == "broken.jpg"] == ["failed"]
    with page.expect_download() as waiting:
        page.get_by_role("link", name="provenance").click()
    assert json.loads(Path(waiting.value.path()).read_text())["job"] == job


def test_retry_and_delete(page: Any, mien: Running) -> None:
    job = submit(page, mien.photos / "set")
    wait_until_completed(page)
    page.get_by_role("button", name=re.compile("Try the 1 failed again")).click()
    page.wait_for_url(re.compile(job))
    wait_until_completed(page)
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("button", name="Delete for good").click()
    page.wait_for_url(re.compile("/$"))
    page.wait_for_function(
        "async id => (await fetch(`/api/v1/jobs/${id}`)).status === 404", arg=job, timeout=PATIENCE_MS
    )


def test_what_is_wrong_is_said_at_the_field(page: Any, mien: Running) -> None:
    page.goto("/")
    field = page.get_by_label("Path of the folder")
    field.fill("/etc")
    field.press("Enter")
    page.get_by_role("alert").wait_for()
    assert "outside the folders" in page.get_by_role("alert").inner_text()
    assert field.input_value() == "/etc"
    assert field.evaluate("element => element === document.activeElement")
    page.get_by_role("link", name=str(mien.photos)).click()
    assert field.input_value() == str(mien.photos)


def test_the_keyboard_is_enough(page: Any, mien: Running) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "faces"
    for _ in range(3):  # the choice of a model, where there are several
        if page.evaluate("document.activeElement.id") != "path":
            page.keyboard.press("Tab")
    page.keyboard.type(str(mien.photos / "set"))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/jobs/"))
    wait_until_completed(page)


def test_the_focus_stays_while_the_page_changes(page: Any, mien: Running) -> None:
    with mien.worker_asleep():
        submit(page, mien.photos / "set")
        page.locator("#how summary").click()
        page.locator("#delete").focus()
    wait_until_completed(page)
    assert page.evaluate("document.activeElement.id") == "delete"
    assert page.locator("#how").get_attribute("open") is not None


def test_without_script(browser: Any, mien: Running) -> None:
    context = browser.new_context(base_url=mien.url, java_script_enabled=False)
    page = context.new_page()
    with mien.worker_asleep():
        submit(page, mien.photos / "set")
        assert page.get_by_role("link", name="Reload").is_visible()
    wait_until_completed(page)  # the page reloads itself
    assert page.get_by_role("link", name="results.csv").is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(browser: Any, mien: Running, scheme: str) -> None:
    with Client(mien.url) as client:
        job = client.submit_folder(mien.photos / "set", faces="whole")
        *_, job = client.wait(job.id)
    context = browser.new_context(base_url=mien.url, color_scheme=scheme, viewport={"width": 360, "height": 740})
    page = context.new_page()
    for path in ("/", f"/jobs/{job.id}", f"/jobs/{job.id}/delete", "/sign-in", "/jobs/nothing"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    context.close()


def test_signing_in(page: Any, mien: Running) -> None:
    from mien.database import Database

    db = Database(f"sqlite:///{mien.data / 'mien.sqlite3'}")
    info, secret = create_key(db, "browser")
    try:
        page.goto("/")
        page.wait_for_url(re.compile("/sign-in"))
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        assert "does not open" in page.get_by_role("alert").inner_text()
        page.get_by_label("API key").fill(secret)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(re.compile("/$"))
        submit(page, mien.photos / "set")
        wait_until_completed(page)
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(re.compile("/sign-in"))
    finally:
        revoke_key(db, info.id)
        db.dispose()
