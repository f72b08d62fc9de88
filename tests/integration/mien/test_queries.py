"""Results across jobs, filters, and sums: held against the rows themselves, on both databases."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mien.aggregates import folders, summary, summary_over
from mien.database import Database
from mien.errors import InvalidRequestError
from mien.job_filter import JobFilter, searchable
from mien.jobs import get_job, list_jobs
from mien.ledger.commit import ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.ledger.submit import submit
from mien.receipts import request_delete
from mien.results import ResultFilter, results_across, results_page
from mien.schema import faces, images, jobs
from tests.support.ledger import LABELS, bad, control, face, new_job, work_off

FOLDERS = ("", "a/", "a/b/", "a/b-c/", "ab/", "b/")
OWNER = "local"


def answering(seed: int) -> Any:
    """An answer of many kinds for each image."""
    rng = random.Random(seed)

    def answer(image: LeasedImage) -> ImageOutcome:
        kind = rng.random()
        if kind < 0.1:
            return bad(image)
        if kind < 0.2:
            return ImageOutcome(image.id, "no_face", width=1, height=1)
        shares = [rng.random() for _ in LABELS]
        found = [face(*(share / sum(shares) for share in shares), x=number) for number in range(rng.randint(1, 3))]
        return ImageOutcome(image.id, "ok", faces=tuple(found))

    return answer


@pytest.fixture
def some_jobs(db: Database, tmp_path: Path) -> list[str]:
    """Three jobs of one owner, 60 images each in several folders; one of somebody else."""
    made = []
    for number, facts in enumerate(
        [
            {"metadata": {"study": "7", "arm": True}},
            {"metadata": {"study": 7, "site": "Köln"}, "model": "other", "model_revision": "b" * 64},
            {"labels": ["sad", "bored", "happy"]},
            {"owner": "somebody", "metadata": {"study": "7"}},
        ]
    ):
        folder = tmp_path / str(number)
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file in range(10):
                (folder / name / f"{file}.jpg").write_bytes(b"")
        public_id, _ = submit(db, new_job(folder, **facts))
        control(db, chunk_size=7).expand()
        work_off(db, answering(number))
        made.append(public_id)
    return made


def expected(db: Database, public_id: str, wanted: ResultFilter) -> list[str]:
    """The files that fit, found by looking at every row."""
    with db.read() as connection:
        job = connection.execute(sa.select(jobs.c.id).where(jobs.c.public_id == public_id)).scalar_one()
        rows = connection.execute(sa.select(images).where(images.c.job_id == job)).all()
        boxes: dict[int, list[Any]] = {}
        for box in connection.execute(sa.select(faces).where(faces.c.job_id == job)):
            boxes.setdefault(box.image_id, []).append(box)
    low, high = wanted.min_confidence or 0, wanted.max_confidence or 1
    on_faces = (wanted.emotion, wanted.min_confidence, wanted.max_confidence) != (None, None, None)
    return sorted(
        row.path_text
        for row in rows
        if (wanted.outcome is None or row.outcome == wanted.outcome)
        and row.path_text.startswith(wanted.prefix or "")
        and (
            not on_faces
            or any(
                (wanted.emotion in (None, box.emotion)) and low <= box.confidence <= high
                for box in boxes.get(row.id, [])
            )
        )
    )


WANTED = [
    ResultFilter(),
    ResultFilter(emotion="sad"),
    ResultFilter(emotion="bored"),
    ResultFilter(emotion="happy", min_confidence=0.6),
    ResultFilter(min_confidence=0.5, max_confidence=0.52),
    ResultFilter(max_confidence=0.36),
    ResultFilter(outcome="failed"),
    ResultFilter(outcome="cancelled"),
    ResultFilter(prefix="a/b"),
    ResultFilter(prefix="ab/"),
    ResultFilter(prefix="a/b/1", outcome="ok", emotion="sad"),
]


def pages(read: Any) -> list[dict[str, Any]]:
    """All items, page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = read(after)
        found += page.items
        after = page.next
        if not page.has_more:
            return found


def test_every_filter_finds_exactly_what_fits(db: Database, some_jobs: list[str]) -> None:
    mine = [get_job(db, OWNER, public_id) for public_id in some_jobs[:3]]
    order = {job.public_id: place for place, job in enumerate(mine)}
    for wanted in WANTED:
        fitting = {job.public_id: expected(db, job.public_id, wanted) for job in mine}
        within = pages(lambda after, w=wanted: results_page(db, mine[1], after=after, limit=4, wanted=w))
        assert sorted(item["file"] for item in within) == fitting[mine[1].public_id], wanted
        assert [item["sequence"] for item in within] == sorted(item["sequence"] for item in within)
        across = pages(lambda after, w=wanted: results_across(db, OWNER, after=after, limit=7, wanted=w))
        places = [(order[item["job"]], *item["sequence"]) for item in across]
        assert places == sorted(places)
        for public_id, files in fitting.items():
            assert sorted(i["file"] for i in across if i["job"] == public_id) == files, wanted


def test_jobs_are_chosen_by_what_they_have_in_common(db: Database, some_jobs: list[str]) -> None:
    one, two, three, _ = some_jobs
    later, earlier = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    for among, chosen in [
        (JobFilter(), [one, two, three]),
        (JobFilter(status="running"), []),
        (JobFilter(model="other"), [two]),
        (JobFilter(model="other@bb"), [two]),
        (JobFilter(model="other@aa"), []),
        (JobFilter(model="b" * 12), [two]),
        (JobFilter(model="%"), []),
        (JobFilter(created_after=earlier, created_before=later), [one, two, three]),
        (JobFilter(created_after=later), []),
        (JobFilter(finished_before=later), [one, two, three]),
        (JobFilter(finished_before=earlier), []),
        (JobFilter(metadata={"study": "7"}), [one, two]),
        (JobFilter(metadata={"study": "7", "site": "Köln"}), [two]),
        (JobFilter(metadata={"arm": "true"}), [one]),
        (JobFilter(metadata={"arm": "7"}), []),
    ]:
        assert [job.public_id for job in list_jobs(db, OWNER, among=among).items] == chosen[::-1], among
        page = results_across(db, OWNER, among=among, limit=1000)
        assert list(dict.fromkeys(item["job"] for item in page.items)) == chosen, among
        assert summary_over(db, OWNER, among)["jobs"] == len(chosen), among


def test_only_plain_values_can_be_searched() -> None:
    facts = {"a": "x", "b": 1, "c": 1.5, "d": None, "e": [1], "f": {"g": 1}, "h": False, "k" * 201: "x", "l": "x" * 501}
    assert searchable(facts) == {"a": "x", "b": "1", "c": "1.5", "h": "false"}


def test_cursors_across_jobs_are_their_own(db: Database, some_jobs: list[str]) -> None:
    within = results_page(db, get_job(db, OWNER, some_jobs[0]), limit=1).next
    for wrong, code in ((within, "cursor_of_another_job"), ("x", "bad_cursor")):
        with pytest.raises(InvalidRequestError) as refused:
            results_across(db, OWNER, after=wrong)
        assert refused.value.code == code


def test_sums_are_those_of_the_rows(db: Database, some_jobs: list[str]) -> None:
    job = get_job(db, OWNER, some_jobs[0])
    items = results_page(db, job, limit=1000).items
    for top in ("", "a", "a/b", "ab", "nowhere"):
        inside = [item for item in items if item["file"].startswith(f"{top}/") or not top]
        found = summary(db, job, folder=top)
        emotions = Counter(box["emotion"] for item in inside for box in item["faces"])
        assert found["faces"] == {label: emotions[label] for label in LABELS}
        outcomes = Counter(item["outcome"] for item in inside)
        assert {name: number for name, number in found["outcomes"].items() if number} == dict(outcomes)
        assert found["errors"] == ({"corrupt": outcomes["failed"]} if outcomes["failed"] else {})
        bins = Counter(min(int(box["confidence"] * 20), 19) for item in inside for box in item["faces"])
        assert found["confidence_histogram"] == [bins[number] for number in range(20)]


def test_folders_hold_all_below_them(db: Database, some_jobs: list[str]) -> None:
    job = get_job(db, OWNER, some_jobs[0])
    top, more = folders(db, job)
    assert ([item["folder"] for item in top], more) == (["", "a", "ab", "b"], False)
    assert [sum(item["outcomes"].values()) for item in top] == [10, 30, 10, 10]
    assert sum(sum(item["faces"].values()) for item in top) == job.counts["faces"]
    assert [item["folder"] for item in folders(db, job, folder="a/")[0]] == ["a", "a/b", "a/b-c"]
    first, more = folders(db, job, limit=2)
    assert ([item["folder"] for item in first], more) == (["", "a"], True)
    assert [item["folder"] for item in folders(db, job, after="a", limit=2)[0]] == ["ab", "b"]


def test_sums_over_jobs_go_by_label_and_leave_out_what_is_being_deleted(db: Database, some_jobs: list[str]) -> None:
    found = summary_over(db, OWNER)
    mine = [get_job(db, OWNER, public_id) for public_id in some_jobs[:3]]
    assert found["jobs"] == 3
    assert sum(found["faces"].values()) == sum(found["confidence_histogram"]) == sum(j.counts["faces"] for j in mine)
    by_job = [summary(db, job)["faces"] for job in mine]
    for label in ("happy", "sad", "neutral", "bored"):
        assert found["faces"][label] == sum(each.get(label, 0) for each in by_job)
    assert found["outcomes"]["ok"] == sum(job.counts["ok"] for job in mine)
    request_delete(db, OWNER, some_jobs[0])
    assert summary_over(db, OWNER)["jobs"] == 2
    assert {item["job"] for item in results_across(db, OWNER, limit=1000).items} == set(some_jobs[1:3])
    control(db).purge()
    assert summary_over(db, OWNER)["jobs"] == 2
    assert list_jobs(db, OWNER, among=JobFilter(metadata={"arm": "true"})).items == []
