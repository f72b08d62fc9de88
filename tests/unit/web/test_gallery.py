"""The gallery without script: what a page shows, what its parts say, and that names and words are only ever text."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from mien.database import Database
from mien.ledger.commit import FaceOutcome, ImageOutcome
from mien.ledger.lease import LeasedImage
from tests.support.ledger import LABELS, bad, expanded_job, work_off
from web.boxes import boxes_of
from web.charts import confidence_histogram, segments

PAGE = {"Accept": "text/html"}
NASTY = "<img src=x onerror=alert(1)>&\"'"


def answer(image: LeasedImage) -> ImageOutcome:
    """Two faces, one of them doubtful; the first image fails."""
    if image.position == 0:
        return bad(image)
    doubt = 0.4 + image.id / 1000
    faces = (FaceOutcome(5, 5, 20, 20, 0.9, (0.9, 0.1, 0.0)), FaceOutcome(30, 2, 8, 8, 0.8, (0.1, doubt, 0.9 - doubt)))
    return ImageOutcome(image.id, "ok", width=40, height=30, faces=faces)


def test_the_wall_and_its_parts(client: FlaskClient, db: Database, photos: Path) -> None:
    job_id = expanded_job(db, photos, 70, chunk_size=70)
    work_off(db, answer)
    page = client.get(f"/jobs/{job_id}/gallery", headers=PAGE).text
    assert page.count('class="tile"') == 48
    assert 'data-more="yes"' in page and 'rel="next"' in page
    part = client.get(f"/jobs/{job_id}/gallery/tiles?sort=doubtful")
    assert part.headers["Mien-More"] == "yes" and "<html" not in part.text
    assert "sad" in part.text and "+1" in part.text
    rest = client.get(
        f"/jobs/{job_id}/gallery/tiles", query_string={"sort": "doubtful", "after": part.headers["Mien-Next"]}
    )
    assert (rest.text.count('class="tile"'), rest.headers["Mien-More"]) == (21, "no")
    failed = client.get(f"/jobs/{job_id}/gallery?outcome=failed", headers=PAGE).text
    assert failed.count('class="tile"') == 1 and "corrupt" in failed and "/thumbnail" not in failed
    assert "Only photographs with faces" in client.get(f"/jobs/{job_id}/gallery?outcome=failed&sort=certain").text
    assert "No photograph fits" in client.get(f"/jobs/{job_id}/gallery?faces=3-", headers=PAGE).text
    strip = client.get(f"/jobs/{job_id}/gallery/strip").text
    assert strip.count('class="tile"') == 8


@pytest.mark.parametrize(
    "query", ["outcome=lost", "faces=many", "sort=name", "from=101", "to=-1", "from=half", "after=x"]
)
def test_words_that_are_not_known_are_refused(client: FlaskClient, db: Database, photos: Path, query: str) -> None:
    job_id = expanded_job(db, photos, 1)
    refused = client.get(f"/jobs/{job_id}/gallery?{query}")
    assert refused.status_code == 400 and refused.json["detail"]


def test_names_and_labels_are_text(client: FlaskClient, db: Database, photos: Path) -> None:
    folder = photos / "<b>bold"
    folder.mkdir()
    (folder / f"{NASTY}.jpg").write_bytes(b"")
    (folder / "next.jpg").write_bytes(b"")
    job_id = expanded_job(db, photos, 0, labels=["<u>glad", *LABELS[1:]])
    work_off(db, lambda image: answer(image) if image.position else bad(image))
    wall = client.get(f"/jobs/{job_id}/gallery", headers=PAGE).text
    ids = [part.partition('"')[0] for part in wall.split('data-id="')[1:]]
    pages = [wall, *(client.get(f"/jobs/{job_id}/images/{number}", headers=PAGE).text for number in ids)]
    pages += [client.get(f"/jobs/{job_id}/images/{number}/part").text for number in ids]
    pages += [client.get(path, headers=PAGE).text for path in ("/", f"/jobs/{job_id}")]
    pages.append(client.get("/browse", query_string={"path": str(photos)}).text)
    for page in pages:
        assert "<img src=x" not in page and "<b>bold" not in page and "<u>glad" not in page
    assert any(NASTY in html.unescape(page) for page in pages)
    assert client.get(f"/jobs/{job_id}/images/{NASTY}").status_code == 404


def test_an_image_page_tells_all(client: FlaskClient, db: Database, photos: Path) -> None:
    job_id = expanded_job(db, photos, 3)
    work_off(db, answer)
    ids = [p.partition('"')[0] for p in client.get(f"/jobs/{job_id}/gallery").text.split('data-id="')[1:]]
    page = client.get(f"/jobs/{job_id}/images/{ids[1]}", headers=PAGE).text
    for words in ("90.0%", "10.0%", "tiny", "40 × 30 pixels", "20 × 20 pixels at 5, 5", 'rel="prev"', 'rel="next"'):
        assert words in page, words
    assert "say nothing certain about what the person felt" in page
    failed = client.get(f"/jobs/{job_id}/images/{ids[0]}", headers=PAGE).text
    assert "It is broken." in failed and "/picture" not in failed


def test_an_estimate_is_a_sentence(client: FlaskClient) -> None:
    assert "not known yet" in client.get("/estimate?images=1200&faces=detect").text
    assert client.get("/estimate?images=many").status_code == 400


def test_boxes_are_shares_of_the_picture() -> None:
    face = {"face": 0, "x": 10, "y": 60, "width": 50, "height": 20, "emotion": "sad", "confidence": 0.456}
    (box,) = boxes_of([face], 200, 100)
    assert (box.x, box.y, box.width, box.height, box.words) == (5, 60, 25, 20, "sad 46%")
    assert box.tag_dy < 0 < boxes_of([{**face, "y": 2}], 200, 100)[0].tag_dy
    assert [b.words for b in boxes_of([face, face], 200, 100, named=1)] == ["sad", ""]
    assert boxes_of([face], None, None) == []


def test_charts_say_what_they_show() -> None:
    parts = segments({"a": 1, "b": 0, "c": 3})
    assert [(p.label, p.start, p.width, p.share) for p in parts] == [("a", 0, 25, "25.0%"), ("c", 25, 75, "75.0%")]
    drawn = confidence_histogram([0] * 9 + [1] + [0] * 9 + [3])
    assert drawn is not None
    assert [column.words for column in drawn.columns] == ["45 to 50%: 1 faces", "95 to 100%: 3 faces"]
    assert drawn.columns[1].height == pytest.approx(3 * drawn.columns[0].height, rel=0.01)
    assert "75% were named with a confidence of 80% or more, 25% with less than 50%" in drawn.sentence
    assert confidence_histogram([0] * 20) is None
