"""Images in the order of their confidence: every one once, in order, whatever the filter and the way it is found."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import mien.gallery
from mien.database import Database
from mien.errors import InvalidRequestError
from mien.estimate import estimate
from mien.gallery import first_images, image_of, neighbours, page_by_confidence
from mien.jobs import get_job
from mien.ledger.commit import FaceOutcome, ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.results import ResultFilter, results_page
from tests.support.ledger import expanded_job, work_off

IMAGES = 40


@pytest.fixture
def job_id(db: Database, tmp_path: Path) -> str:
    """40 images in two folders with none to three faces each, and some confidences that are equal."""
    rng = random.Random(5)
    for number in range(IMAGES):
        file = tmp_path / "photos" / ("a" if number % 4 else "b") / f"{number:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")

    def answer(image: LeasedImage) -> ImageOutcome:
        faces = []
        for _ in range(rng.randrange(4)):
            top = rng.choice((0.4, 0.5, 0.61, round(rng.uniform(0.4, 0.99), 6)))
            rest = [top, (1 - top) * 0.7, (1 - top) * 0.3]
            faces.append(FaceOutcome(1, 2, 10, 10, 0.9, tuple(rng.sample(rest, 3))))
        return ImageOutcome(
            image.id, "ok" if faces else "no_face", width=40, height=30, sha256=bytes(32), faces=tuple(faces)
        )

    public_id = expanded_job(db, tmp_path / "photos", 0)
    work_off(db, answer)
    return public_id


FILTERS = {
    "any": ResultFilter(),
    "one label": ResultFilter(emotion="sad"),
    "a label that is not there": ResultFilter(emotion="bored"),
    "between": ResultFilter(min_confidence=0.5, max_confidence=0.7),
    "two faces or more": ResultFilter(min_faces=2),
    "one face": ResultFilter(min_faces=1, max_faces=1),
    "a folder": ResultFilter(prefix="b/"),
    "a folder and a label": ResultFilter(prefix="a/", emotion="happy", min_faces=2),
}


@pytest.fixture(params=[0, 20_000])
def bounded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Folders looked up either way; and pages that may be short."""
    monkeypatch.setattr(mien.gallery, "MOST_SORTED", request.param)
    monkeypatch.setattr(mien.gallery, "MOST_LOOKED_AT", 10)
    return int(request.param)


@pytest.mark.parametrize("most_certain_first", [False, True])
def test_every_image_stands_once_at_its_face(db: Database, job_id: str, most_certain_first: bool, bounded: int) -> None:
    job = get_job(db, "local", job_id)
    for name, wanted in FILTERS.items():
        order = expected_order(results_page(db, job, limit=1000, wanted=wanted).items, wanted, most_certain_first)
        found: list[int] = []
        after, more = None, True
        while more:
            page = page_by_confidence(
                db, job, most_certain_first=most_certain_first, after=after, limit=7, wanted=wanted
            )
            assert len(page.items) <= 7
            found += [item["image_id"] for item in page.items]
            after, more = page.next, page.has_more
        assert found == order, (name, bounded)
        assert (name == "a label that is not there") == (not found)


def expected_order(items: list[dict[str, Any]], wanted: ResultFilter, most_certain_first: bool) -> list[int]:
    """The images' ids, each at the first of its faces that the filter keeps."""
    places = {}
    for item in items:
        kept = [
            (face["confidence"], item["image_id"], face["face"])
            for face in item["faces"]
            if wanted.emotion in (None, face["emotion"])
            and (wanted.min_confidence or 0) <= face["confidence"] <= (wanted.max_confidence or 1)
        ]
        if kept:
            places[item["image_id"]] = max(kept) if most_certain_first else min(kept)
    return sorted(places, key=places.__getitem__, reverse=most_certain_first)


def test_cursors_belong_to_their_order(db: Database, job_id: str) -> None:
    job = get_job(db, "local", job_id)
    after = page_by_confidence(db, job, limit=1).next
    with pytest.raises(InvalidRequestError) as caught:
        page_by_confidence(db, job, most_certain_first=True, after=after)
    assert caught.value.code == "cursor_of_another_job"


def test_results_by_number_of_faces(db: Database, job_id: str) -> None:
    job = get_job(db, "local", job_id)
    everything = results_page(db, job, limit=1000).items
    for low, high in ((2, None), (3, 3), (0, 0), (1, 2)):
        wanted = ResultFilter(min_faces=low, max_faces=high)
        found = {item["file"] for item in results_page(db, job, limit=1000, wanted=wanted).items}
        assert found == {i["file"] for i in everything if low <= len(i["faces"]) <= (99 if high is None else high)}


def test_neighbours_by_path_and_first_images(db: Database, job_id: str) -> None:
    job = get_job(db, "local", job_id)
    by_path = sorted(results_page(db, job, limit=1000).items, key=lambda item: item["file"])
    ids = [item["image_id"] for item in by_path]
    for place, image_id in enumerate(ids):
        beside = neighbours(db, job, image_id)
        assert beside.before == (ids[place - 1] if place else None)
        assert beside.after == (ids[place + 1] if place + 1 < len(ids) else None)
        assert image_of(db, job, image_id)["file"] == by_path[place]["file"]
    first = first_images(db, [job], 4)[job.id]
    assert len(first) == 4 and all(image_of(db, job, image_id)["faces"] for image_id in first)


def test_an_estimate_says_when_nothing_was_measured(db: Database, job_id: str) -> None:
    job = get_job(db, "local", job_id)
    known = estimate(db, 1000, model_revision=job.model_revision, faces_mode="detect")
    assert known.measured_on == 1 and known.seconds and known.images_per_s
    assert known.seconds == pytest.approx(1000 / known.images_per_s)
    unknown = estimate(db, 1000, model_revision="b" * 64, faces_mode="detect")
    assert (unknown.seconds, unknown.measured_on) == (None, 0)
