"""Reviews over HTTP, and through the client: every answer is held against the OpenAPI document."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mien.client import Client
from mien.database import Database
from mien.errors import ConflictError, NotFoundError, UnprocessableError
from mien.keys import create_key
from tests.support.ledger import control, expanded_job
from tests.support.review import reviewed_job
from tests.support.serving import serving


def begin(client: FlaskClient, job: str, **body: object) -> str:
    """A review's address."""
    made = client.post(f"/api/v1/jobs/{job}/reviews", json={"mode": "check", "size": 12} | body)
    assert made.status_code == 201, made.text
    return made.headers["Location"]


def test_a_check_from_the_draw_to_the_figures(client: FlaskClient, db: Database, photos: Path) -> None:
    job = reviewed_job(db, photos / "a")
    review = begin(client, job, seed=3)
    assert client.get(review).json["seed"] == 3
    for rater, wanted in (("Ada", "happy"), ("Ben", "sad")):
        while items := client.get(f"{review}/faces?rater={rater}&limit=5").json["items"]:
            for face in items:
                assert face["model"] is None and face["answer"] is None
                given = {"rater": rater, "file": face["file"], "face": face["face"], "emotion": wanted}
                told = client.put(f"{review}/answers", json=given)
                assert told.status_code == 200 and told.json["model"]["probabilities"]
    figures = client.get(f"{review}/figures").json
    assert [rater["answers"] for rater in figures["raters"]] == [12, 12]
    assert (figures["answered"], figures["told"], figures["undecided"]) == (12, 0, 12)  # the two never agree
    assert figures["accuracy"]["value"] is None
    assert figures["pairs"][0]["agreement"]["value"] == 0.0
    progress = client.get(f"/api/v1/jobs/{job}/reviews").json["items"][0]["raters"]
    assert [(rater["rater"], rater["answers"]) for rater in progress] == [("Ada", 12), ("Ben", 12)]


def test_mending_and_taking_back(client: FlaskClient, db: Database, photos: Path) -> None:
    job = reviewed_job(db, photos / "a")
    review = begin(client, job, mode="mend")
    assert begin(client, job, mode="mend") == review
    face = client.get(f"{review}/faces?rater=Ada").json["items"][0]
    assert face["model"] is not None and face["place"] is None
    given = {"rater": "Ada", "file": face["file"], "face": face["face"], "emotion": None}
    assert client.put(f"{review}/answers", json=given).json["answer"]["emotion"] is None
    where = {"rater": "Ada", "file": face["file"], "face": face["face"]}
    assert client.delete(f"{review}/answers", query_string=where).status_code == 204
    again = client.delete(f"{review}/answers", query_string=where)
    assert (again.status_code, again.json["code"]) == (404, "unknown_face")
    refused = client.get(f"{review}/figures")
    assert (refused.status_code, refused.json["code"]) == (409, "no_figures")


def test_answers_as_files(client: FlaskClient, db: Database, photos: Path) -> None:
    job = reviewed_job(db, photos / "a")
    review = begin(client, job)
    for face in client.get(f"{review}/faces?rater==Ada").json["items"]:
        given = {"rater": "=Ada", "file": face["file"], "face": face["face"], "emotion": "sad", "note": 'a, "b"\nc'}
        client.put(f"{review}/answers", json=given)
    table = client.get(f"/api/v1/jobs/{job}/answers.csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert len(rows) == 12
    assert {(row["mode"], row["rater"], row["answer"], row["note"]) for row in rows} == {
        ("check", "=Ada", "sad", 'a, "b"\nc')
    }
    assert all(float(row["stands_for"]) >= 1 and row["emotion"] in ("happy", "sad", "neutral") for row in rows)
    assert "'=Ada" in client.get(f"/api/v1/jobs/{job}/answers.csv?spreadsheet=1").text
    lines = [json.loads(line) for line in client.get(f"/api/v1/jobs/{job}/answers.jsonl").text.splitlines()]
    assert [line["file"] for line in lines] == [row["file"] for row in rows]
    assert client.get(f"/api/v1/jobs/{job}/answers.jsonl?mode=mend").text == ""
    first = client.get(f"/api/v1/jobs/{job}/answers?limit=7").json
    rest = client.get(f"/api/v1/jobs/{job}/answers?limit=7&after={first['next']}").json
    assert [len(first["items"]), len(rest["items"]), first["has_more"], rest["has_more"]] == [7, 5, True, False]
    assert first["items"] + rest["items"] == lines


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"mode": "mix"}, 400, "invalid_request"),
        ({"mode": "check", "size": 0}, 400, "invalid_request"),
        ({"mode": "check", "sise": 5}, 400, "invalid_request"),
        ({"mode": "check"}, 409, "job_not_finished"),
    ],
)
def test_what_cannot_be_begun(  # noqa: PLR0917
    client: FlaskClient, db: Database, photos: Path, body: dict[str, object], status: int, code: str
) -> None:
    answer = client.post(f"/api/v1/jobs/{expanded_job(db, photos / 'a', 3)}/reviews", json=body)
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_reviews_of_others_do_not_exist(client: FlaskClient, db: Database, photos: Path) -> None:
    review = begin(client, reviewed_job(db, photos / "a", 8))
    _, secret = create_key(db, "other", owner="other")
    _, reader = create_key(db, "reader", owner="local", scope="read")
    other = {"Authorization": f"Bearer {secret}"}
    for path in ("", "/faces?rater=Ada", "/figures"):
        answer = client.get(f"{review}{path}", headers=other)
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_review")
    mine = {"Authorization": f"Bearer {reader}"}
    assert client.get(f"{review}/figures", headers=mine).status_code == 200
    given = {"rater": "Ada", "file": "00000.jpg", "face": 0, "emotion": "sad"}
    assert client.put(f"{review}/answers", json=given, headers=mine).json["code"] == "scope_needed"


def test_the_client(app: Flask, db: Database, photos: Path, tmp_path: Path) -> None:
    job = reviewed_job(db, photos / "a")
    with serving(app) as url, Client(url) as mien:
        review = mien.begin_review(job, size=9, seed=1)
        assert mien.review(review.id) == review and mien.reviews(job) == [review]
        for face in mien.review_faces(review.id, "Ada", page_size=4):
            assert face.model is None
            assert mien.rate(review.id, "Ada", face.file, face.face, "happy").model is not None
        assert mien.review_figures(review.id).raters[0].answers == 9
        assert len(list(mien.answers(job, mode="check", rater="Ada", page_size=2))) == 9
        assert mien.download(job, "answers.csv", tmp_path / "answers.csv").complete
        assert (tmp_path / "answers.csv").read_text().count("\n") == 10
        mend = mien.begin_review(job, "mend")
        face = next(mien.review_faces(mend.id, "Ada"))
        mien.rate(mend.id, "Ada", face.file, face.face, None, note="dark")
        mien.take_answer_back(mend.id, "Ada", face.file, face.face)
        with pytest.raises(ConflictError, match="first answer counts"):
            mien.take_answer_back(review.id, "Ada", face.file, face.face)
        with pytest.raises(UnprocessableError) as label:
            mien.rate(mend.id, "Ada", face.file, face.face, "joy")
        assert label.value.code == "unknown_label"
        mien.delete_images(job, face.file)
        control(db).purge()
        with pytest.raises(NotFoundError):
            mien.rate(mend.id, "Ada", face.file, face.face, "sad")
