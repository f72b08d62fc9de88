"""The client when a server refuses for now, or breaks off; data frames; what it asks across jobs."""

from __future__ import annotations

import datetime as dt
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask, Response

from mien import client_results, transport
from mien.client import Among, Client
from mien.database import Database
from mien.errors import LimitError, NotFoundError, UnavailableError
from mien.ledger.commit import ImageOutcome
from tests.support.ledger import bad, expanded_job, face, ok, work_off
from tests.support.serving import serving

pytestmark = pytest.mark.long


@pytest.fixture
def mien(app: Flask) -> Iterator[Client]:
    with serving(app) as url, Client(url) as client:
        yield client


@contextmanager
def answering(*answers: Response) -> Iterator[tuple[Client, list[float]]]:
    """A client of a server that gives these answers in turn, and the times at which it was asked."""
    other, left, asked = Flask("other"), list(answers), []

    @other.route("/api/v1/<path:_>", methods=["GET", "POST", "PUT", "DELETE"])
    def answer(_: str) -> Response:
        asked.append(time.monotonic())
        return left.pop(0)

    with serving(other) as url, Client(url) as client:
        yield client, asked


def problem(status: int, code: str, **headers: str) -> Response:
    body = (
        f'{{"type":"about:blank","title":"x","status":{status},"detail":"Not now.","code":"{code}","request_id":"r"}}'
    )
    return Response(body, status, headers | {"Content-Type": "application/problem+json"})


MODELS = '{"items": []}'


def good() -> Response:
    return Response(MODELS, 200, {"Content-Type": "application/json"})


def test_what_is_refused_for_now_is_asked_again_after_the_pause() -> None:
    later = {"Retry-After": "1"}
    with answering(problem(429, "rate_limited", **later), problem(503, "unavailable", **later), good()) as (
        mien,
        asked,
    ):
        assert mien.models() == []
    assert len(asked) == 3
    assert asked[1] - asked[0] >= 1 and asked[2] - asked[1] >= 1


def test_a_pause_of_hours_is_not_waited_for() -> None:
    with answering(problem(429, "images_quota", **{"Retry-After": "7200"})) as (mien, asked):
        with pytest.raises(LimitError) as refused:
            mien.models()
        assert (refused.value.code, refused.value.retry_after_s, len(asked)) == ("images_quota", 7200, 1)


def test_what_may_have_been_done_is_not_asked_again() -> None:
    with answering(problem(503, "unavailable", **{"Retry-After": "0"})) as (mien, asked):
        with pytest.raises(UnavailableError):
            mien.retry("x")
        assert len(asked) == 1


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_FIRST_PAUSE_S", 0.01)
    answers = [problem(503, "unavailable", **{"Retry-After": "0"}) for _ in range(9)]
    with answering(*answers) as (mien, asked), pytest.raises(UnavailableError):
        mien.models()
    assert len(asked) == 1 + mien.retries


def test_a_server_that_answered_once_is_waited_for(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(app) as url:
        client = Client(url)
        assert len(client.models()) == 1
    pauses: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)
    with pytest.raises(UnavailableError, match="mien up"):
        client.models()
    assert len(pauses) == client.retries and pauses == sorted(pauses)


def test_a_download_goes_on_with_the_part_that_broke(
    mien: Client, db: Database, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = expanded_job(db, photos, 50)
    work_off(db)
    whole = io.BytesIO()
    mien.download(job, "results.csv", whole)
    monkeypatch.setattr(client_results, "PART", 20)
    real, calls = client_results._copy, []

    def breaks(answer: object, file: io.BytesIO, progress: object) -> int:
        size = real(answer, file, progress)  # type: ignore[arg-type]
        calls.append(size)
        if len(calls) in (2, 3):
            raise UnavailableError("broken", code="download_broken")
        return size

    monkeypatch.setattr(client_results, "_copy", breaks)
    seen: list[int] = []
    found = io.BytesIO()
    saved = mien.download(job, "results.csv", found, progress=seen.append)
    assert found.getvalue() == whole.getvalue()
    assert (saved.bytes, saved.complete, len(calls)) == (len(whole.getvalue()), True, 5)
    assert seen[-1] == saved.bytes


def test_a_data_frame(mien: Client, db: Database, photos: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="data frames need pandas: pip install pandas")
    (photos / "NA").mkdir()
    job = expanded_job(db, photos, 3)

    def answer(image: object) -> ImageOutcome:
        if image.path == b"00001.jpg":  # type: ignore[attr-defined]
            return bad(image)  # type: ignore[arg-type]
        return ImageOutcome(image.id, "ok", faces=(face(), face(0.1, 0.8, 0.1)))  # type: ignore[attr-defined]

    work_off(db, answer)
    frame = mien.data_frame(job)
    assert list(frame["file"]) == ["00000.jpg"] * 2 + ["00001.jpg"] + ["00002.jpg"] * 2
    assert (frame["face"].dtype, frame["p_sad"].dtype) == ("Int64", "float64")
    assert list(frame["emotion"].isna()) == [False, False, True, False, False]
    assert frame["confidence"].max() == 0.8
    assert list(mien.data_frame(job, columns=["emotion"]).columns) == ["emotion"]
    assert isinstance(frame, pandas.DataFrame)


def test_questions_across_jobs(mien: Client, db: Database, photos: Path) -> None:
    jobs = [mien.submit_folder(photos, metadata={"study": study, "ok": True}).id for study in ("x", "y")]
    (photos / "a").mkdir()
    (photos / "a" / "1.jpg").write_bytes(b"")
    from tests.support.ledger import control

    control(db).expand()
    work_off(db, ok)
    study_x = Among(metadata={"study": "x", "ok": True}, created_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert [job.id for job in mien.jobs(among=study_x)] == jobs[:1]
    assert [(r.job, r.file) for r in mien.results_across(emotion="happy")] == [(job, "a/1.jpg") for job in jobs]
    assert [r.job for r in mien.results_across(study_x)] == jobs[:1]
    assert mien.overall_summary().faces["happy"] == 2
    assert mien.overall_summary(Among(model="nobody")).jobs == 0
    assert [item.folder for item in mien.folders(jobs[0])] == ["a"]
    assert mien.summary(jobs[0], folder="a").faces["happy"] == 1
    assert mien.model("tiny").default
    with pytest.raises(NotFoundError):
        mien.model("nobody")
