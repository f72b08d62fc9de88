"""Jobs over HTTP, on both databases, in the ledger as control and workers would leave it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from mien.control import Control
from mien.database import Database
from mien.errors import SettingsError
from mien.heartbeat import beat
from mien.jobs import get_job
from mien.ledger.commit import ImageOutcome
from mien.ledger.lease import LeasedImage
from tests.support.ledger import assert_exact, bad, control, expanded_job, face, ok, work_off
from tests.support.web import make_settings, parts_of
from web.app import create_app

CUT_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
NASTY = "new\nline, \"quotes\", 'single', 😀, =1+1.jpg"


def body(photos: Path, **changes: Any) -> dict[str, Any]:
    return {"source": {"type": "folder", "path": str(photos)}, **changes}


def submitted(client: FlaskClient, photos: Path, **sent: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/jobs", json=body(photos), **sent)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json
    return found


def expander(db: Database) -> Control:
    return control(db, chunk_size=4)


def test_submit_and_read(client: FlaskClient, photos: Path) -> None:
    answer = client.post(
        "/api/v1/jobs",
        json=body(
            photos,
            model="tiny",
            options={"faces": "whole", "detect_size": 320, "min_face_score": 0.5, "min_face": 20},
            metadata={"who": "Ada", "n": [1, 2.5, None, "é😀"]},
        ),
    )
    assert answer.status_code == 202
    job = answer.json
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert int(answer.headers["Retry-After"]) > 0
    read = client.get(answer.headers["Location"])
    assert read.json == job
    assert read.headers["ETag"] == answer.headers["ETag"]
    assert job["status"] == "queued" and job["complete"] is False
    assert job["metadata"] == {"who": "Ada", "n": [1, 2.5, None, "é😀"]}
    assert job["options"] == {
        "faces": "whole", "precision": "fp32", "detect_size": 320, "min_face_score": 0.5, "min_face": 20
    }  # fmt: skip
    assert job["model"]["name"] == "tiny" and len(job["model"]["revision"]) == 64


@pytest.mark.parametrize("same_body", [True, False])
def test_fifty_at_once_with_one_key_make_one_job(
    app: Flask, db: Database, photos: Path, tmp_path: Path, same_body: bool
) -> None:
    (photos / "other").mkdir()
    folders = [photos if same_body or number % 2 else photos / "other" for number in range(50)]

    def submit(folder: Path) -> tuple[int, str]:
        answer = app.test_client().post("/api/v1/jobs", json=body(folder), headers={"Idempotency-Key": "once"})
        return answer.status_code, answer.json.get("id") or answer.json["code"]

    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(submit, folders))
    accepted = {found for status, found in answers if status == 202}
    refused = [answer for answer in answers if answer[0] != 202]
    assert len(accepted) == 1
    assert app.test_client().get("/api/v1/jobs").json["items"][0]["id"] in accepted
    assert len(app.test_client().get("/api/v1/jobs").json["items"]) == 1
    assert refused == ([] if same_body else [(422, "idempotency_key_reused")] * 25)


def test_a_repeat_says_so_and_another_body_is_refused(client: FlaskClient, photos: Path) -> None:
    key = {"Idempotency-Key": "k"}
    first = client.post("/api/v1/jobs", json=body(photos), headers=key)
    again = client.post("/api/v1/jobs", json=body(photos), headers=key)
    assert again.json["id"] == first.json["id"]
    assert ("Idempotent-Replayed" in first.headers, again.headers["Idempotent-Replayed"]) == (False, "true")
    other = client.post("/api/v1/jobs", json=body(photos, metadata={"x": 1}), headers=key)
    assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")


def test_unusable_requests_leave_nothing(client: FlaskClient, photos: Path, tmp_path: Path) -> None:
    (photos / "file.jpg").write_bytes(b"")
    (photos / "out").symlink_to(tmp_path)
    for path, code in [
        (photos / "missing", "source_missing"),
        (tmp_path, "source_outside_roots"),
        (photos / ".." / "data", "source_outside_roots"),
        (photos / "out", "source_outside_roots"),
        (photos / "file.jpg", "source_not_a_folder"),
        ("relative", "source_missing"),
    ]:
        answer = client.post("/api/v1/jobs", json=body(Path(path)))
        assert (answer.status_code, answer.json["code"], answer.json["field"]) == (422, code, "source.path"), path
    for model in ("nothing-like-it", "../../etc", "", "tiny@ffffffff"):
        answer = client.post("/api/v1/jobs", json=body(photos, model=model))
        assert answer.status_code in (202, 422)
        if model:
            assert answer.json["code"] == "unknown_model", model
    answer = client.post("/api/v1/jobs", json=body(photos, metadata={"x": "y" * 20_000}))
    assert answer.json["code"] == "metadata_too_large"
    assert len(client.get("/api/v1/jobs").json["items"]) == 1  # the one with model ""


def test_lists_page_without_gap_or_repeat(client: FlaskClient, photos: Path) -> None:
    ids = [submitted(client, photos)["id"] for _ in range(5)][::-1]
    seen, after = [], None
    while True:
        page = client.get("/api/v1/jobs", query_string={"limit": 2} | ({"after": after} if after else {})).json
        seen += [job["id"] for job in page["items"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == ids
    client.post(f"/api/v1/jobs/{ids[1]}/cancel")
    assert [j["id"] for j in client.get("/api/v1/jobs?status=cancelling").json["items"]] == [ids[1]]
    assert client.get("/api/v1/jobs?status=completed").json["items"] == []


def test_the_etag_follows_the_job(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 8)
    first = client.get(f"/api/v1/jobs/{job}")
    tag = {"If-None-Match": first.headers["ETag"]}
    same = client.get(f"/api/v1/jobs/{job}", headers=tag)
    assert (same.status_code, same.data) == (304, b"")
    work_off(db, ok, limit=1)
    changed = client.get(f"/api/v1/jobs/{job}", headers=tag)
    assert changed.status_code == 200 and changed.json["counts"]["ok"] == 4
    assert "Retry-After" in changed.headers
    work_off(db, ok)
    done = client.get(f"/api/v1/jobs/{job}")
    assert done.json["complete"] and "Retry-After" not in done.headers
    assert done.json["counts"] == {
        "total": 8, "pending": 0, "ok": 8, "no_face": 0, "failed": 0, "cancelled": 0,
        "faces": 8, "skipped": 0, "cached": 0,
    }  # fmt: skip


def test_following_a_running_job_misses_and_repeats_nothing(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 10, chunk_size=3)
    seen: list[str] = []
    after = None
    for _ in range(6):
        work_off(db, ok, limit=1)
        query = {"limit": 2} | ({"after": after} if after else {})
        page = client.get(f"/api/v1/jobs/{job}/results", query_string=query).json
        seen += [item["file"] for item in page["items"]]
        after = page["next"] or after
    assert sorted(seen) == [f"{n:05d}.jpg" for n in range(10)]
    end = client.get(f"/api/v1/jobs/{job}/results", query_string={"after": after}).json
    assert (end["items"], end["has_more"], end["next"]) == ([], False, after)


def test_filters(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 4)
    chances = {b"0": (0.9, 0.05, 0.05), b"1": (0.1, 0.8, 0.1), b"3": (0.6, 0.3, 0.1)}

    def answer(image: LeasedImage) -> ImageOutcome:
        number = image.path[4:5]
        return replace(ok(image), faces=(face(*chances[number]),)) if number in chances else bad(image)

    work_off(db, answer)

    def names(**query: Any) -> list[str]:
        page = client.get(f"/api/v1/jobs/{job}/results", query_string=query).json
        return sorted(item["file"][4] for item in page["items"])

    assert names() == ["0", "1", "2", "3"]
    assert names(emotion="happy") == names(label="happy") == ["0", "3"]
    assert names(emotion="happy", min_confidence=0.7) == ["0"]
    assert names(max_confidence=0.85) == ["1", "3"]
    assert names(outcome="failed") == ["2"]
    assert names(prefix="00003") == ["3"]
    assert names(prefix="x") == []


def test_cursors_belong_to_their_job(client: FlaskClient, db: Database, photos: Path) -> None:
    first, second = expanded_job(db, photos / "a", 2), expanded_job(db, photos / "b", 2)
    work_off(db, ok)
    cursor = client.get(f"/api/v1/jobs/{first}/results").json["next"]
    answer = client.get(f"/api/v1/jobs/{second}/results", query_string={"after": cursor})
    assert (answer.status_code, answer.json["code"]) == (400, "cursor_of_another_job")
    for broken in ("x", "W10", "WyJqb2JzIl0", "é", "A" * 500):
        answer = client.get(f"/api/v1/jobs/{first}/results", query_string={"after": broken})
        assert answer.status_code == 400, broken


def test_exports(client: FlaskClient, db: Database, photos: Path) -> None:
    photos.joinpath(NASTY).write_bytes(b"")
    job = expanded_job(db, photos, 3)
    work_off(db, lambda image: bad(image) if image.path == b"00001.jpg" else ok(image))
    table = client.get(f"/api/v1/jobs/{job}/results.csv")
    assert table.headers["Mien-Complete"] == "true"
    assert table.headers["Content-Disposition"] == f'attachment; filename="mien-{job}-results.csv"'
    assert table.content_type == "text/csv; charset=utf-8"
    assert table.text.splitlines()[0].startswith("file,face,x,y,width,height,face_score,emotion,confidence,p_happy")
    assert '"' + NASTY.replace('"', '""') + '",0,' in table.text
    lines = [json.loads(line) for line in client.get(f"/api/v1/jobs/{job}/results.jsonl").text.splitlines()]
    assert [line["file"] for line in lines] == ["00000.jpg", "00001.jpg", "00002.jpg", NASTY]
    errors = client.get(f"/api/v1/jobs/{job}/errors.csv").text
    assert errors == "file,error,detail\n00001.jpg,corrupt,It is broken.\n"
    images = client.get(f"/api/v1/jobs/{job}/images.csv").text
    assert images.count("\n") == 1 + 4 + 1  # one name has a newline


def test_an_export_of_a_running_job_is_marked(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 8)
    work_off(db, ok, limit=1)
    for kind in ("results.csv", "results.jsonl", "errors.csv", "images.csv"):
        assert client.get(f"/api/v1/jobs/{job}/{kind}").headers["Mien-Complete"] == "false", kind


def test_an_export_is_cut_off_when_its_job_is_deleted_under_it(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 3)
    work_off(db, ok)
    answer = client.get(f"/api/v1/jobs/{job}/results.csv", buffered=False)
    blocks = answer.iter_encoded()
    assert next(blocks).startswith(b"file,")
    client.delete(f"/api/v1/jobs/{job}")
    expander(db).purge()
    with pytest.raises(Exception, match=job):
        list(blocks)


def test_summary_provenance_and_citation(client: FlaskClient, db: Database, photos: Path) -> None:
    submitted_job = submitted(client, photos)["id"]
    (photos / "a.jpg").write_bytes(b"")
    expander(db).expand()
    work_off(db, ok)
    summary = client.get(f"/api/v1/jobs/{submitted_job}/summary").json
    assert summary["faces"] == {"happy": 1, "sad": 0, "neutral": 0}
    assert sum(summary["confidence_histogram"]) == 1
    provenance = client.get(f"/api/v1/jobs/{submitted_job}/provenance").json
    assert provenance["model"]["name"] == "tiny" and provenance["complete"] is True
    cite = client.get(f"/api/v1/jobs/{submitted_job}/cite").json
    assert "Mien" in cite["methods"] and cite["bibtex"].startswith("@software{")


def test_cancel_retry_delete(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 8)
    work_off(db, bad, limit=1)
    refused = client.post(f"/api/v1/jobs/{job}/retry")
    assert (refused.status_code, refused.json["code"]) == (409, "job_not_retryable")
    cancelled = client.post(f"/api/v1/jobs/{job}/cancel")
    assert (cancelled.status_code, cancelled.json["status"]) == (202, "cancelling")
    expander(db).purge()
    assert client.get(f"/api/v1/jobs/{job}").json["counts"]["cancelled"] == 4
    again = client.post(f"/api/v1/jobs/{job}/cancel")
    assert (again.status_code, again.json["status"]) == (202, "cancelled")
    retried = client.post(f"/api/v1/jobs/{job}/retry")
    assert (retried.status_code, retried.json["status"]) == (202, "queued")
    expander(db).expand()
    work_off(db, ok)
    assert_exact(db, job)
    refused = client.post(f"/api/v1/jobs/{job}/cancel")
    assert (refused.status_code, refused.json["code"]) == (409, "job_not_cancellable")
    assert client.delete(f"/api/v1/jobs/{job}").json["job"] == job
    assert client.delete(f"/api/v1/jobs/{job}").status_code == 202
    expander(db).purge()
    assert client.get(f"/api/v1/jobs/{job}").status_code == 404


def test_models_and_workers(client: FlaskClient, db: Database) -> None:
    model = client.get("/api/v1/models").json["items"][0]
    assert (model["name"], model["default"], model["labels"]) == ("tiny", True, ["happy", "sad", "neutral"])
    assert model["precisions"]["cpu"] == ["fp32"]
    assert client.get("/api/v1/workers").json["items"] == []
    beat(
        db, name="w@host:1", host="host", pid=1, device="cpu", precisions=["fp32"], models=[], engines=2,
        images_per_s=None, version="0.1.0",
    )  # fmt: skip
    assert [worker["name"] for worker in client.get("/api/v1/workers").json["items"]] == ["w@host:1"]


def test_readiness_names_what_is_missing(client: FlaskClient, db: Database) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503 and answer.json["code"] == "not_ready"
    assert {name: check["ok"] for name, check in answer.json["checks"].items()} == {
        "database": True, "broker": False, "worker": False
    }  # fmt: skip
    assert "broker" in answer.json["detail"] and "worker" in answer.json["detail"]


def test_a_ledger_that_is_not_migrated_is_refused(tmp_path: Path, postgres_url: str) -> None:
    with pytest.raises(SettingsError, match="mien migrate"):
        create_app(make_settings(tmp_path, database_url=postgres_url))


def test_lost_connections_are_made_anew(client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 2500, chunk_size=1000)
    work_off(db, ok)
    answer = client.get(f"/api/v1/jobs/{job}/results.jsonl", buffered=False)
    lines = answer.iter_encoded()
    first = next(lines)
    if not db.is_sqlite:  # which has no connections that a server could cut
        with db.write() as connection:
            connection.execute(sa.text(CUT_OTHERS))
    assert (first + b"".join(lines)).count(b"\n") == 2500
    assert client.get(f"/api/v1/jobs/{job}").json["complete"]


def test_hostile_words_never_break_the_server(app: Flask, client: FlaskClient, db: Database, photos: Path) -> None:
    job = expanded_job(db, photos, 1)
    work_off(db, ok)
    words = [
        "'",
        '"',
        "%",
        "\\",
        "\x01",
        "\x7f",
        "é",
        "😀",
        "\u2028",
        "-1",
        "1e999",
        "x" * 2000,
        "%ff",
        "${x}",
        "\ufffe",
    ]
    for word in words:
        for name in ("after", "emotion", "label", "prefix", "outcome", "limit", "min_confidence", "x"):
            status = client.get(f"/api/v1/jobs/{job}/results", query_string={name: word}).status_code
            assert status in (200, 400), (name, word)
        assert client.get("/api/v1/jobs", query_string={"after": word}).status_code == 400, word
        assert client.post("/api/v1/jobs", json=body(photos, metadata={word: word})).status_code == 202, word
        assert client.post("/api/v1/jobs", json=body(photos / word)).status_code in (202, 400, 422), word
        assert client.post("/api/v1/jobs", json=body(photos, model=word)).status_code in (400, 422), word
        assert client.get(f"/jobs/{word}").status_code == 404, word
        assert client.post("/", data={"path": word, "faces": word, "once": word}).status_code in (400, 422), word
    assert get_job(parts_of(app).db, "local", job).complete
