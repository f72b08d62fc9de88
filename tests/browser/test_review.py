"""Raters at the desk: by key and by press, with the model's answer hidden in a check; figures; models; the system."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mien.client import Client
from tests.browser.axe import assert_accessible
from tests.browser.conftest import Running, watched_page

pytestmark = pytest.mark.browser

SIZES = [{"width": 1200, "height": 800}, {"width": 360, "height": 740}]


def begin(page: Any, job: str, mode: str, rater: str, size: int = 8, *, script: bool = True) -> str:
    """From the job's page to the first face, where the desk takes keys (with its ``script``); the review's address."""
    page.goto(f"/jobs/{job}")
    page.get_by_role("link", name="Review").click()
    card = page.get_by_role("region", name=mode)
    card.get_by_label("Your name").fill(rater)
    if mode == "Check":
        card.get_by_label(re.compile("Faces to draw")).fill(str(size))
        card.get_by_role("button", name="Draw a sample").click()
    else:
        card.get_by_role("button", name="Begin with the least certain").click()
    page.wait_for_url(re.compile("/reviews/"))
    if script:  # the last thing it does at the start is to focus the desk
        page.wait_for_function("document.activeElement?.id === 'desk'")
    return str(page.url).partition("?")[0]


def test_a_check_by_keys(page: Any, job_of_people: str) -> None:
    review = begin(page, job_of_people, "Check", "Ada")
    desk = page.locator("#desk")
    assert "The model says" not in desk.inner_text() and page.locator(".is-model").count() == 0
    page.wait_for_function("document.getElementById('face-picture').naturalWidth > 0")
    assert_accessible(page, "the desk of a check")
    page.keyboard.press("2")
    page.get_by_text("1 of 8 rated").wait_for()
    assert "the model says" in page.locator("#last").inner_text()  # of the face before, not of this one
    assert page.locator(".is-model").count() == 0
    assert re.match(r"Kept: .+ The model says .+ Next face, 2 of 8\.", page.locator("#announce").text_content())
    assert page.evaluate("document.activeElement.id") == "desk"
    page.keyboard.press("u")
    page.get_by_text("2 of 8 rated").wait_for()
    assert "cannot be decided" in page.locator("#last").inner_text()
    page.keyboard.press("Backspace")  # back to it: another answer is kept beside the first
    page.get_by_text("which counts in the figures").wait_for()
    page.keyboard.press("1")
    page.get_by_text("What does this face show?").wait_for()
    page.wait_for_url(lambda url: "again=" not in url)
    assert page.get_by_text("2 of 8 rated").is_visible()
    for done in range(3, 9):
        page.keyboard.press("1")
        page.get_by_text(f"{done} of 8 rated").wait_for()
    page.get_by_role("link", name="See the figures").click()
    page.wait_for_url(f"{review}/figures")
    row = page.get_by_role("row", name=re.compile("Ada"))
    assert row.get_by_role("cell").all_inner_texts()[:3] == ["8 of 8", "1", "1"]
    assert page.locator(".huge").inner_text().endswith("%")
    assert page.locator(".confusion tbody tr").count() >= 3
    assert_accessible(page, "the figures")


def test_a_rater_goes_on_later_and_another_sees_nothing_of_it(page: Any, mien: Running, job_of_people: str) -> None:
    with Client(mien.url) as client:
        review = client.begin_review(job_of_people, size=4, seed=2)
        first = next(client.review_faces(review.id, "Ada"))
        client.rate(review.id, "Ada", first.file, first.face, None)
    page.goto(f"/jobs/{job_of_people}/review")
    page.locator(f'a[href*="{review.id}?rater=Ada"]').click()
    page.get_by_text("1 of 4 rated").wait_for()
    page.goto(f"/reviews/{review.id}")
    page.get_by_label("Your name").fill("Ben")
    page.get_by_role("button", name="Begin").click()
    page.get_by_text("0 of 4 rated").wait_for()
    assert page.locator("#last").count() == 0


def test_mending(page: Any, mien: Running, job_of_people: str) -> None:
    review = begin(page, job_of_people, "Mend", "Cleo").rpartition("/")[2]
    assert_accessible(page, "the desk of mending")
    model = page.locator(".is-model").get_attribute("value")
    page.keyboard.press("Enter")  # confirmed
    page.get_by_text("1 mended by Cleo").wait_for()
    with Client(mien.url) as client:
        answers = list(client.answers(job_of_people, mode="mend", rater="Cleo"))
        assert [(one.answer, one.emotion) for one in answers] == [(model, model)]
    page.keyboard.press("Backspace")  # taken back
    page.get_by_text("0 mended by Cleo").wait_for()
    page.locator(".label-button:not(.is-model)").first.click()  # corrected, by pressing
    page.get_by_text("1 mended by Cleo").wait_for()
    page.get_by_label("Keys").uncheck()
    page.locator("h1").click()
    page.keyboard.press("u")
    page.wait_for_timeout(300)
    assert page.get_by_text("1 mended by Cleo").is_visible()  # keys are off
    page.get_by_label("Keys").check()
    with Client(mien.url) as client:
        (one,) = client.answers(job_of_people, mode="mend", rater="Cleo")
        assert one.answer != one.emotion and one.review == review


def test_a_lost_server_loses_no_answer(page: Any, job_of_people: str) -> None:
    page.expected += ["Failed to load resource", "net::ERR_FAILED"]
    begin(page, job_of_people, "Mend", "Dan")
    page.route("**/reviews/**", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    page.keyboard.press("1")
    page.get_by_text("The answer was not kept, because Mien does not answer").wait_for()
    assert page.locator("#connection").is_visible()
    page.unroute("**/reviews/**")
    page.keyboard.press("1")
    page.get_by_text("1 mended by Dan").wait_for()
    assert page.locator("#desk-trouble").is_hidden()


def test_without_script(browser: Any, mien: Running, job_of_people: str) -> None:
    with watched_page(browser, mien.url, java_script_enabled=False) as page:
        begin(page, job_of_people, "Check", "Eve", 2, script=False)
        page.locator(".label-button").first.click()
        assert page.get_by_text("1 of 2 rated").is_visible()
        page.get_by_role("button", name="Cannot be decided").click()
        assert page.get_by_text("You have rated all 2 faces").is_visible()


def test_what_is_wrong_is_said(page: Any, job_of_people: str) -> None:
    page.goto(f"/jobs/{job_of_people}/review")
    name = page.get_by_role("region", name="Mend").get_by_label("Your name")
    name.fill("   ")
    name.press("Enter")
    page.get_by_role("alert").wait_for()
    assert "1 to 80 visible characters" in page.get_by_role("alert").inner_text()
    page.goto("/reviews/nothing")
    assert "There is no review" in page.locator(".error").inner_text()


def test_models_and_system(page: Any, mien: Running, job_of_people: str) -> None:
    page.goto("/")
    page.get_by_role("navigation").get_by_role("link", name="Models").click()
    assert page.locator(".model-list .state").inner_text() == "default"
    page.locator(".model-list h2 a").first.click()
    assert page.locator("h1").inner_text().startswith("tiny")
    assert_accessible(page, "a model")
    page.get_by_role("navigation").get_by_role("link", name="System").click()
    page.get_by_text("images in the last 60 minutes").wait_for()
    assert page.locator("table .path", has_text="worker@").count() == 1
    with page.expect_response(re.compile("part=1")):  # it keeps itself fresh
        pass
    assert_accessible(page, "the system")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=["wide", "phone"])
def test_every_page_fits_and_is_accessible(
    browser: Any, mien: Running, job_of_people: str, scheme: str, size: dict[str, int]
) -> None:
    with Client(mien.url) as client:
        review = client.begin_review(job_of_people, size=6, seed=5)
        for face in client.review_faces(review.id, "Ada"):
            client.rate(review.id, "Ada", face.file, face.face, review.labels[0])
    addresses = (
        *(f"/jobs/{job_of_people}/review", f"/reviews/{review.id}?rater=Ben", f"/reviews/{review.id}"),
        *(f"/reviews/{review.id}/figures", "/models", "/models/default", "/system", "/sign-in"),
    )
    with watched_page(browser, mien.url, color_scheme=scheme, viewport=size) as page:
        for address in addresses:
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address
            assert_accessible(page, f"{address} ({scheme})")
