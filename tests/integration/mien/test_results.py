"""Results out: pages that follow a job, filters, summary, and the exports."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from pathlib import Path

import pytest

from mien.aggregates import summary
from mien.database import Database
from mien.errors import InvalidRequestError
from mien.export import csv_columns, csv_lines, errors_csv_lines, images_csv_lines, jsonl_lines
from mien.jobs import Job, get_job, request_retry
from mien.ledger.commit import ImageOutcome, commit_chunk
from mien.ledger.lease import LeasedImage, take_chunk
from mien.provenance import bibtex, methods_sentence, provenance
from mien.results import ResultFilter, results_page
from tests.support.ledger import LABELS, bad, control, expanded_job, face, ok, taker, work_off

ODD_NAMES = [
    b"=1+1.jpg", b"+x.jpg", b"-x.jpg", b"@x.jpg", b" =x.jpg", b"new\nline.jpg", b"re\rturn.jpg", b"quo\"te,'.jpg",
    "é😀.jpg".encode(), b"\xff\xfe.jpg", b"sub/plain.jpg", b"back\\slash.jpg",
]  # fmt: skip


def answer(image: LeasedImage) -> ImageOutcome:
    if image.path.endswith(b"1.jpg"):
        return ImageOutcome(image.id, "no_face", width=1, height=1)
    if image.path.endswith(b"2.jpg"):
        return bad(image)
    if image.path.endswith(b"3.jpg"):
        return ImageOutcome(image.id, "ok", faces=(face(0.1, 0.8, 0.1), face(0.5, 0.2, 0.3, x=50)))
    return ok(image)


def follow(db: Database, job: Job, after: str | None = None, limit: int = 7) -> tuple[list[str], str | None]:
    names: list[str] = []
    while True:
        page = results_page(db, job, after=after, limit=limit)
        names += [item["file"] for item in page.items]
        after = page.next
        if not page.has_more:
            return names, after


def test_a_follower_misses_nothing_and_sees_nothing_twice(db: Database, tmp_path: Path) -> None:
    public_id = expanded_job(db, tmp_path / "a", 200, chunk_size=5)
    job = get_job(db, "local", public_id)
    done = threading.Event()

    def work(name: str) -> None:
        while lease := take_chunk(db, taker(name), 60):
            commit_chunk(db, lease, [ok(image) for image in lease.images])

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    names: list[str] = []
    after: str | None = None
    while not done.is_set():
        if not any(thread.is_alive() for thread in threads):
            done.set()
        new, after = follow(db, job, after)
        names += new
    assert len(names) == 200
    assert len(set(names)) == 200


def test_a_retried_image_comes_again_later(db: Database, tmp_path: Path) -> None:
    public_id = expanded_job(db, tmp_path / "a", 10)
    work_off(db, answer)
    job = get_job(db, "local", public_id)
    first, after = follow(db, job)
    assert len(first) == 10
    request_retry(db, "local", public_id)
    control(db).expand()
    work_off(db)
    assert follow(db, job, after)[0] == ["00002.jpg"]


def test_filters(db: Database, tmp_path: Path) -> None:
    public_id = expanded_job(db, tmp_path / "a", 20)
    work_off(db, answer)
    job = get_job(db, "local", public_id)

    def files(**filters: object) -> list[str]:
        return sorted(item["file"] for item in results_page(db, job, limit=100, wanted=ResultFilter(**filters)).items)  # type: ignore[arg-type]

    assert files(outcome="no_face") == ["00001.jpg", "00011.jpg"]
    assert files(outcome="failed") == ["00002.jpg", "00012.jpg"]
    assert files(emotion="sad") == ["00003.jpg", "00013.jpg"]
    assert len(files(emotion="happy")) == 16
    assert files(min_confidence=0.75) == ["00003.jpg", "00013.jpg"]
    assert files(emotion="happy", max_confidence=0.6) == ["00003.jpg", "00013.jpg"]
    assert files(emotion="sad", max_confidence=0.6) == []
    assert files(prefix="0001") == [f"000{n}.jpg" for n in range(10, 20)]
    assert files(prefix="nothing") == []


def test_cursors_of_other_jobs_are_refused(db: Database, tmp_path: Path) -> None:
    one, two = (expanded_job(db, tmp_path / name, 4) for name in "ab")
    work_off(db)
    page = results_page(db, get_job(db, "local", one), limit=2)
    with pytest.raises(InvalidRequestError) as caught:
        results_page(db, get_job(db, "local", two), after=page.next)
    assert caught.value.code == "cursor_of_another_job"


def test_summary(db: Database, tmp_path: Path) -> None:
    public_id = expanded_job(db, tmp_path / "a", 20)
    work_off(db, answer)
    facts = summary(db, get_job(db, "local", public_id))
    assert facts["faces"] == {"happy": 16, "sad": 2, "neutral": 0}
    assert facts["outcomes"] == {"pending": 0, "ok": 16, "no_face": 2, "failed": 2, "cancelled": 0}
    assert facts["errors"] == {"corrupt": 2}
    bins = facts["confidence_histogram"]
    assert (bins[10], bins[14], bins[16], sum(bins)) == (2, 14, 2, 18)


@pytest.fixture
def odd_job(db: Database, tmp_path: Path) -> Job:
    folder = tmp_path / "odd"
    (folder / "sub").mkdir(parents=True)
    for name in ODD_NAMES:
        os.close(os.open(bytes(folder) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    public_id = expanded_job(db, folder, 4)
    work_off(db, answer)
    return get_job(db, "local", public_id)


def rows_of(lines: object) -> list[list[str]]:
    text = b"".join(lines).decode()  # type: ignore[arg-type]
    return list(csv.reader(io.StringIO(text, newline="")))


def test_the_csv_has_one_row_per_face_and_one_per_image_without(db: Database, odd_job: Job) -> None:
    header, *rows = rows_of(csv_lines(db, odd_job))
    assert header == csv_columns(LABELS)
    assert header == [
        "file", "face", "x", "y", "width", "height", "face_score", "emotion", "confidence",
        "p_happy", "p_sad", "p_neutral", "status", "error",
    ]  # fmt: skip
    by_file: dict[str, list[list[str]]] = {}
    for row in rows:
        by_file.setdefault(row[0], []).append(row)
    exact = {name.decode("utf-8", "replace") for name in ODD_NAMES if name != b"\xff\xfe.jpg"}
    assert set(by_file) == exact | {"\\xff\\xfe.jpg"} | {f"0000{n}.jpg" for n in range(4)}
    assert by_file["00000.jpg"] == [
        ["00000.jpg", "0", "1", "2", "10", "10", "0.9", "happy", "0.7", "0.7", "0.2", "0.1", "ok", ""]
    ]
    assert by_file["00001.jpg"] == [["00001.jpg", *[""] * 11, "no_face", ""]]
    assert by_file["00002.jpg"] == [["00002.jpg", *[""] * 11, "failed", "corrupt"]]
    assert [row[1:3] for row in by_file["00003.jpg"]] == [["0", "1"], ["1", "50"]]
    paths = [row[0] for row in rows]
    in_order = sorted({*ODD_NAMES, *(f"0000{n}.jpg".encode() for n in range(4))})
    assert list(dict.fromkeys(paths)) == [p.decode() if p != b"\xff\xfe.jpg" else "\\xff\\xfe.jpg" for p in in_order]


def test_spreadsheets_run_no_cell(db: Database, odd_job: Job) -> None:
    names = {row[0] for row in rows_of(csv_lines(db, odd_job, spreadsheet=True))}
    assert {"'=1+1.jpg", "'+x.jpg", "'-x.jpg", "'@x.jpg", "' =x.jpg"} <= names
    assert {"sub/plain.jpg", "é😀.jpg"} <= names


def test_the_other_exports(db: Database, odd_job: Job) -> None:
    errors = rows_of(errors_csv_lines(db, odd_job))
    assert errors == [["file", "error", "detail"], ["00002.jpg", "corrupt", "It is broken."]]
    images = rows_of(images_csv_lines(db, odd_job))
    assert len(images) == 1 + len(ODD_NAMES) + 4
    row = dict(zip(images[0], next(r for r in images if r[0] == "00003.jpg"), strict=True))
    assert (row["status"], row["faces"], row["emotion"], row["confidence"]) == ("ok", "2", "sad", "0.8")
    lines = [json.loads(line) for line in b"".join(jsonl_lines(db, odd_job)).splitlines()]
    assert len(lines) == len(ODD_NAMES) + 4
    assert {line["file"] for line in lines} == {row[0] for row in images[1:]}
    assert next(line for line in lines if line["file"] == "00003.jpg")["faces"][1]["probabilities"] == {
        "happy": 0.5, "sad": 0.2, "neutral": 0.3,
    }  # fmt: skip


def test_a_finished_job_gives_the_same_bytes_every_time(db: Database, odd_job: Job) -> None:
    for export in (csv_lines, images_csv_lines, errors_csv_lines, jsonl_lines):
        assert b"".join(export(db, odd_job)) == b"".join(export(db, odd_job))


def test_exports_page_through_many_images(db: Database, tmp_path: Path) -> None:
    public_id = expanded_job(db, tmp_path / "many", 2500, chunk_size=500)
    work_off(db)
    rows = rows_of(csv_lines(db, get_job(db, "local", public_id)))
    assert [row[0] for row in rows[1:]] == [f"{n:05d}.jpg" for n in range(2500)]


def test_provenance_and_citation(db: Database, odd_job: Job) -> None:
    facts = provenance(odd_job)
    assert facts["counts"]["total"] == len(ODD_NAMES) + 4
    assert facts["complete"] is True
    assert json.loads(json.dumps(facts)) == facts
    sentence = methods_sentence(odd_job)
    assert "Mien" in sentence
    assert "a" * 12 in sentence
    assert bibtex(odd_job).startswith("@software{mien,")
