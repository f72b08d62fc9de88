"""The pages without script: what a form does, what is shown, and that names cannot break out."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from mien.database import Database
from mien.jobs import list_jobs
from tests.support.ledger import LABELS, bad, expanded_job, ok, work_off
from tests.support.web import make_app
from web.charts import bar_chart
from web.pages import _duration

PAGE = {"Accept": "text/html,*/*;q=0.8"}
NASTY = "<script>alert(1)</script>\"'& \n.jpg"


def once(page: str) -> str:
    """The form's key."""
    found = re.search(r'name="once" value="([0-9a-f]{32})"', page)
    assert found
    return found.group(1)


def submit(client: FlaskClient, photos: Path, **changes: str) -> str:
    form = {"once": once(client.get("/", headers=PAGE).text), "path": str(photos), "faces": "whole", "recursive": "1"}
    answer = client.post("/", data=form | changes, headers=PAGE)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"].rpartition("/")[2]


def test_the_start_page_offers_the_roots(client: FlaskClient, photos: Path) -> None:
    page = client.get("/", headers=PAGE).text
    assert f'<option value="{photos}">' in page
    assert "AI Act" in page and "not what a person feels" in page
    assert f'value="{photos}/x"' in client.get(f"/?path={photos}/x", headers=PAGE).text


def test_without_roots_it_says_what_to_do(tmp_path: Path) -> None:
    assert "mien up FOLDER" in make_app(tmp_path, roots=()).test_client().get("/", headers=PAGE).text


def test_the_form_submits(client: FlaskClient, db: Database, photos: Path) -> None:
    job_id = submit(client, photos)
    job = list_jobs(db, "local").items[0]
    assert (job.public_id, job.faces_mode, job.recursive) == (job_id, "whole", True)
    page = client.get(f"/jobs/{job_id}", headers=PAGE).text
    assert "queued" in page and "No worker is running" in page
    assert '<noscript><meta http-equiv="refresh"' in page


def test_an_unchecked_box_counts(client: FlaskClient, db: Database, photos: Path) -> None:
    form = {"once": "0" * 32, "path": str(photos), "faces": "detect"}
    assert client.post("/", data=form).status_code == 303
    job = list_jobs(db, "local").items[0]
    assert (job.faces_mode, job.recursive) == ("detect", False)


def test_the_same_form_twice_is_one_job_and_a_changed_one_another(client: FlaskClient, photos: Path) -> None:
    (photos / "a").mkdir()
    key = once(client.get("/", headers=PAGE).text)
    first = submit(client, photos, once=key)
    assert submit(client, photos, once=key) == first
    assert submit(client, photos / "a", once=key) != first


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [("/etc", 422, "outside the folders"), ("", 400, "Name a folder"), ("relative", 422, "absolute path")],
)
def test_what_is_wrong_is_said_beside_the_field(client: FlaskClient, path: str, status: int, words: str) -> None:
    answer = client.post("/", data={"path": path, "faces": "detect"}, headers=PAGE)
    assert answer.status_code == status
    assert words in html.unescape(answer.text)
    assert 'aria-invalid="true"' in answer.text and 'role="alert"' in answer.text
    assert f'value="{path}"' in answer.text or not path


def test_a_finished_job_shows_all(client: FlaskClient, db: Database, photos: Path) -> None:
    job_id = expanded_job(db, photos, 8)
    work_off(db, lambda image: bad(image) if image.position == 0 else ok(image))
    page = client.get(f"/jobs/{job_id}", headers=PAGE).text
    assert "completed" in page and "refresh" not in page
    for name in ("results.csv", "images.csv", "errors.csv", "results.jsonl", "results.parquet", "provenance"):
        assert f">{name}</a>" in page
    assert "6 faces: happy 6 (100.0%)" in page
    assert "<code>corrupt</code>" in page and "it is damaged" in page
    assert "Of 6 faces 0% were named with a confidence of 80% or more" in page
    assert f"/jobs/{job_id}/gallery" in page
    assert "Try the 2 failed again" in html.unescape(page)
    assert 'action="/jobs/' + job_id + '/cancel"' not in page


def test_a_running_job_shows_progress(client: FlaskClient, db: Database, photos: Path) -> None:
    job_id = expanded_job(db, photos, 8)
    work_off(db, ok, limit=1)
    page = client.get(f"/jobs/{job_id}/live").text
    assert '<progress max="8" value="4"' in page
    assert "images/s" in page and "left" in page
    assert f'action="/jobs/{job_id}/cancel"' in page
    assert "files hold what is there now" in page


def test_the_live_part_is_sent_once(client: FlaskClient, db: Database, photos: Path) -> None:
    job_id = expanded_job(db, photos, 8)
    tag = client.get(f"/jobs/{job_id}/live").headers["ETag"]
    again = client.get(f"/jobs/{job_id}/live", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    work_off(db, ok, limit=1)
    assert client.get(f"/jobs/{job_id}/live", headers={"If-None-Match": tag}).status_code == 200


def test_names_cannot_break_out(client: FlaskClient, db: Database, photos: Path) -> None:
    folder = photos / "<b>x"
    folder.mkdir()
    (folder / NASTY.replace("/", "_")).write_bytes(b"")
    job_id = expanded_job(db, folder, 0, labels=["<i>", *LABELS[1:]])
    work_off(db, ok)
    for path in ("/", f"/jobs/{job_id}", f"/jobs/{job_id}/delete"):
        page = client.get(path, headers=PAGE).text
        assert "<b>x" not in page and "<script>alert" not in page and "<i>" not in page, path
    assert "&lt;i&gt;" in client.get(f"/jobs/{job_id}", headers=PAGE).text


def test_cancel_and_delete_by_form(client: FlaskClient, db: Database, photos: Path) -> None:
    job_id = expanded_job(db, photos, 3)
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 303
    assert "cancelling" in client.get(f"/jobs/{job_id}", headers=PAGE).text
    assert "Delete for good" in client.get(f"/jobs/{job_id}/delete", headers=PAGE).text
    assert client.post(f"/jobs/{job_id}/delete").headers["Location"] == "/"
    assert "deleting" in client.get("/", headers=PAGE).text


def test_retry_by_form(client: FlaskClient, db: Database, photos: Path) -> None:
    job_id = expanded_job(db, photos, 3)
    work_off(db, bad)
    assert client.post(f"/jobs/{job_id}/retry").status_code == 303
    assert "queued" in client.get(f"/jobs/{job_id}", headers=PAGE).text
    refused = client.post(f"/jobs/{expanded_job(db, photos / 'n', 1)}/retry", headers=PAGE)
    assert refused.status_code == 409 and "not ended" in refused.text


def test_bars_are_in_proportion_and_in_words() -> None:
    chart = bar_chart({"a": 1, "b": 3, "c": 0})
    assert chart is not None
    assert [(bar.label, bar.count) for bar in chart.bars] == [("b", 3), ("a", 1), ("c", 0)]
    assert chart.bars[0].length == pytest.approx(3 * chart.bars[1].length)
    assert chart.bars[2].length == 0
    assert chart.sentence == "4 faces: b 3 (75.0%), a 1 (25.0%), c 0 (0.0%)."
    assert bar_chart({"a": 0}) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "")]
)
def test_durations(seconds: float | None, words: str) -> None:
    assert _duration(seconds) == words
