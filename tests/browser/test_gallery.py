"""A person in the gallery: sees the faces, filters, goes through them by keyboard, scrolls for a long time."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.axe import assert_accessible
from tests.browser.conftest import Running, watched_page

pytestmark = pytest.mark.browser

PATIENCE_MS = 60_000
STAYS_IN_DOM = 5 * 48
"""Tiles that gallery.js keeps in the document at most."""


def test_photographs_boxes_and_the_viewer(page: Any, job_of_people: str) -> None:
    page.goto(f"/jobs/{job_of_people}/gallery?outcome=ok&sort=doubtful")
    tiles = page.locator(".tile")
    tiles.first.wait_for()
    shown = tiles.count()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.tile img')].slice(0, 4).every(image => image.naturalWidth > 0)"
    )
    assert page.locator(".tile .boxes .box").count() >= shown
    sure = [int(text.rstrip("%")) for text in page.locator(".tile .sure").all_inner_texts()]
    assert sure == sorted(sure)
    # boxes lie on the picture that they belong to
    photo, overlay = (page.locator(f".tile >> nth=0 >> {part}").bounding_box() for part in ("img", ".boxes"))
    assert photo == pytest.approx(overlay, abs=1)
    tiles.nth(0).locator("a").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.closest('.tile') === document.querySelectorAll('.tile')[1]")
    page.keyboard.press("Enter")
    viewer = page.locator("dialog#viewer")
    viewer.locator(".probabilities").first.wait_for()
    assert re.search(r"/images/\d+", page.url)
    name = viewer.locator("h1").inner_text()
    assert_accessible(page, "the viewer")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => document.querySelector('#viewer h1').textContent !== name", arg=name)
    page.keyboard.press("Escape")
    viewer.wait_for(state="hidden")
    page.wait_for_url("**/gallery?**")
    assert page.evaluate("document.activeElement.closest('.tile') === document.querySelectorAll('.tile')[2]")


def test_filters(page: Any, job_of_people: str) -> None:
    page.goto(f"/jobs/{job_of_people}/gallery")
    page.get_by_label("Outcome").select_option("failed")
    page.wait_for_url("**outcome=failed")
    assert page.locator(".tile").count() == 1
    assert "faces=" not in page.url  # an address holds only what was asked
    page.locator(".tile a").click()
    page.locator("#viewer .error").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Sub-folder").fill("<b>out & about<_b>")
    page.keyboard.press("Enter")
    page.wait_for_url("**folder=**")
    assert page.locator(".tile").count() == 8
    page.get_by_label("At most, percent").fill("1")
    page.keyboard.press("Enter")
    page.get_by_text("No photograph fits").wait_for()


def test_the_image_page(page: Any, job_of_people: str) -> None:
    page.goto(f"/jobs/{job_of_people}/gallery?sort=certain")
    address = page.locator(".tile a").first.get_attribute("href")
    page.goto(address)
    page.wait_for_function("() => document.querySelector('#picture img').naturalWidth > 0")
    box = page.locator("#picture .box").first.bounding_box()
    picture = page.locator("#picture").bounding_box()
    assert picture["x"] - 3 <= box["x"] and box["x"] + box["width"] <= picture["x"] + picture["width"] + 3
    text = page.locator(".image-facts").inner_text()
    assert "Said by" in text and "SHA-256" in text and "pixels" in text
    assert page.locator(".probabilities").first.locator("dt").count() == 3  # the tiny model's labels, all of them
    before = page.url
    page.keyboard.press("ArrowRight" if page.locator("#go-after").count() else "ArrowLeft")
    page.wait_for_function("before => location.href !== before", arg=before)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_everybody_can_use_it(browser: Any, mien: Running, job_of_people: str, scheme: str, width: int) -> None:
    size = {"width": width, "height": 900}
    with watched_page(browser, mien.url, color_scheme=scheme, viewport=size) as page:
        job = f"/jobs/{job_of_people}"
        nothing_fits = f"{job}/gallery?from=99&to=99&emotion=grey"
        for path in ("/", job, f"{job}/gallery", nothing_fits, f"{job}/delete", "/jobs/nothing"):
            page.goto(path)
            assert_accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        page.goto(f"{job}/gallery")
        page.goto(page.locator(".tile a").first.get_attribute("href"))
        assert_accessible(page)


def test_the_theme_is_chosen_and_remembered(page: Any, mien: Running) -> None:
    page.goto("/")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    button = page.locator("#theme")
    button.click()  # light
    assert page.evaluate(paper) == light
    button.click()  # dark
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark
    assert "dark" in button.get_attribute("aria-label")


def test_scrolling_a_large_job_costs_no_memory(page: Any, large_job: str) -> None:
    page.goto(f"/jobs/{large_job}/gallery")
    page.locator(".tile").first.wait_for()
    session = page.context.new_cdp_session(page)

    def weight() -> tuple[int, float]:
        session.send("HeapProfiler.collectGarbage")
        found = {item["name"]: item["value"] for item in session.send("Performance.getMetrics")["metrics"]}
        return int(found["Nodes"]), found["JSHeapUsedSize"] / 1e6

    session.send("Performance.enable")
    first = page.locator(".tile").first.get_attribute("data-id")
    seen: set[str] = set()
    light: tuple[int, float] | None = None
    for step in range(45):
        page.evaluate("scrollBy(0, 2500)")
        page.wait_for_timeout(60)  # the script asks for more with the next frame
        page.wait_for_function("() => !document.getElementById('wall').hasAttribute('aria-busy')", timeout=PATIENCE_MS)
        ids = page.evaluate("[...document.querySelectorAll('.tile')].map(tile => tile.dataset.id)")
        assert len(ids) <= STAYS_IN_DOM
        seen.update(ids)
        if step == 15:
            light = weight()
    heavy = weight()
    assert light is not None and len(seen) > 1500
    assert heavy[0] < 1.3 * light[0] and heavy[1] < light[1] + 4, (light, heavy)
    # and back to where it began, through the spacers
    for _ in range(80):
        page.evaluate("scrollBy(0, -6000)")
        page.wait_for_timeout(60)
        page.wait_for_function("() => !document.getElementById('wall').hasAttribute('aria-busy')", timeout=PATIENCE_MS)
        if page.evaluate("scrollY") == 0:
            break
    page.wait_for_function("id => document.querySelector('.tile')?.dataset.id === id", arg=first, timeout=PATIENCE_MS)
    page.goto(f"/jobs/{large_job}/gallery?sort=doubtful")
    assert page.locator(".tile").count() >= 40


def test_without_script_the_wall_goes_on_by_links(browser: Any, mien: Running, large_job: str) -> None:
    context = browser.new_context(base_url=mien.url, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/jobs/{large_job}/gallery?emotion=happy")
    first = page.locator(".tile").first.get_attribute("data-id")
    assert page.locator(".tile").count() == 48
    page.get_by_role("link", name="More").click()
    assert page.locator(".tile").count() == 48
    assert page.locator(".tile").first.get_attribute("data-id") != first
    page.locator(".tile a").first.click()
    assert page.locator(".probabilities").count() == 1
    context.close()
