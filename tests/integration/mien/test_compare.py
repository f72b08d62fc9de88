"""Two jobs compared: what is matched, what is counted, who is right, and which images differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mien.answering import answer
from mien.compare import Box, compare_jobs, differences, match, mcnemar
from mien.database import Database
from mien.errors import ConflictError, InvalidRequestError, UnprocessableError
from mien.jobs import Job, get_job
from mien.ledger.commit import FaceOutcome, ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.review import start_check, start_mend
from tests.support.ledger import bad, expanded_job, work_off
from tests.support.review import surely

HAPPY, SAD, NEUTRAL = 0, 1, 2
Answer = Callable[[LeasedImage], ImageOutcome]


def seen(image: LeasedImage, *labels: int, shift: float = 0.0, content: bytes = b"\0") -> ImageOutcome:
    """Faces side by side, 100 pixels apart."""
    boxes = tuple(FaceOutcome(100.0 * n + shift, 2, 40, 40, 0.9, surely(label, 0.8)) for n, label in enumerate(labels))
    outcome = "ok" if boxes else "no_face"
    return ImageOutcome(image.id, outcome, sha256=image.path.ljust(32, content), faces=boxes)


def job_of(db: Database, folder: Path, count: int, answers: Answer, **changes: object) -> Job:
    """A completed job over ``count`` files."""
    public_id = expanded_job(db, folder, count, **changes)  # type: ignore[arg-type]
    work_off(db, answers)
    return get_job(db, "local", public_id)


def number(image: LeasedImage) -> int:
    return int(image.path[:5])


def by_a(image: LeasedImage) -> ImageOutcome:
    """0: two faces; 1: one; 2: none; 3: broken; 4: another content; the rest: happy."""
    match number(image):
        case 0:
            return seen(image, HAPPY, SAD)
        case 2:
            return seen(image)
        case 3:
            return bad(image)
        case _:
            return seen(image, HAPPY)


def by_b(image: LeasedImage) -> ImageOutcome:
    """0: the second face is neutral; 1: a second face; 2: one face; 4: changed; 5 and 6: sad; boxes a little off."""
    match number(image):
        case 0:
            return seen(image, HAPPY, NEUTRAL, shift=5)
        case 1:
            return seen(image, HAPPY, HAPPY, shift=5)
        case 4:
            return seen(image, HAPPY, content=b"x")
        case 5 | 6:
            return seen(image, SAD, shift=5)
        case _:
            return seen(image, HAPPY, shift=5)


@pytest.fixture
def jobs_of_both(db: Database, tmp_path: Path) -> tuple[Job, Job]:
    """A over 12 files, B over the same and three more."""
    a = job_of(db, tmp_path / "a", 12, by_a)
    return a, job_of(db, tmp_path / "a", 15, by_b, model="other", fingerprint="e" * 64)


def test_what_is_alike_and_what_is_not(db: Database, jobs_of_both: tuple[Job, Job]) -> None:
    found = compare_jobs(db, *jobs_of_both)
    assert found["images"] == {"same": 10, "differ": 5, "changed": 1, "not_read": 1, "only_a": 0, "only_b": 3}
    assert found["faces"] == {"matched": 10, "agree": 7, "only_a": 0, "only_b": 2}
    assert found["agreement"] == 0.7
    assert found["confusion"] == [[7, 2, 0], [0, 0, 1], [0, 0, 0]]
    assert found["checked"] is None
    turned = compare_jobs(db, *reversed(jobs_of_both))
    assert turned["confusion"] == [list(row) for row in zip(*found["confusion"], strict=True)]
    assert (turned["images"]["only_a"], turned["images"]["only_b"]) == (3, 0)
    assert turned["kappa"] == pytest.approx(found["kappa"])


def test_differences_come_page_by_page(
    db: Database, jobs_of_both: tuple[Job, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = jobs_of_both
    whole = differences(db, a, b, after=None, limit=100)
    assert ([item["file"][:5] for item in whole.items], whole.has_more) == (
        ["00000", "00001", "00002", "00005", "00006"],
        False,
    )
    first, second, third = whole.items[:3]
    assert [(pair["a"]["emotion"], pair["b"]["emotion"]) for pair in first["faces"]] == [("sad", "neutral")]
    assert [pair["a"] for pair in second["faces"]] == [None]
    assert (third["outcome_a"], third["outcome_b"]) == ("no_face", "ok")
    monkeypatch.setattr("mien.compare.PAGE", 4)
    monkeypatch.setattr("mien.compare.LOOKED_AT", 3)
    for limit in (1, 2, 100):
        after, found, pages = None, [], 0
        while True:
            page = differences(db, a, b, after=after, limit=limit)
            found += page.items
            after, pages = page.next, pages + 1
            if not page.has_more:
                break
            assert pages < 30
        assert found == whole.items
    with pytest.raises(InvalidRequestError) as caught:
        differences(db, b, a, after=whole.next, limit=1)
    assert caught.value.code == "cursor_of_another_job"


def test_who_is_right_is_counted_on_checks_alone(db: Database, jobs_of_both: tuple[Job, Job]) -> None:
    a, b = jobs_of_both
    mend = start_mend(db, "local", a.public_id)
    answer(db, mend, rater="Ada", file="00007.jpg", face=0, emotion="sad")  # she saw the model's answer: it counts not
    assert compare_jobs(db, a, b)["checked"] is None
    check_a = start_check(db, "local", a.public_id, size=100, seed=1)
    check_b = start_check(db, "local", b.public_id, size=100, seed=1)
    for file, label in (("00005", "sad"), ("00006", "happy"), ("00007", "happy"), ("00008", "neutral")):
        answer(db, check_a, rater="Ada", file=f"{file}.jpg", face=0, emotion=label)
    answer(db, check_a, rater="Ada", file="00005.jpg", face=0, emotion="happy")  # after she had seen the model's
    answer(db, check_a, rater="Ada", file="00009.jpg", face=0, emotion=None)  # undecidable
    answer(db, check_a, rater="Ada", file="00010.jpg", face=0, emotion="happy")
    answer(db, check_b, rater="Ben", file="00010.jpg", face=0, emotion="sad")  # of the same face, in the other job
    answer(db, check_b, rater="Ben", file="00001.jpg", face=1, emotion="sad")  # found by B alone
    answer(db, check_b, rater="Ben", file="00000.jpg", face=1, emotion="neutral")
    found = compare_jobs(db, a, b)["checked"]
    assert found == {
        "faces": 5,
        "both_right": 1,
        "only_a_right": 1,
        "only_b_right": 2,
        "neither_right": 1,
        "p_value": 1.0,
        "left_out": {"unmatched": 1, "raters_differ": 1, "label_of_one_model": 0},
    }


def test_models_with_other_labels(db: Database, tmp_path: Path) -> None:
    a = job_of(db, tmp_path / "a", 4, lambda image: seen(image, HAPPY))
    b = job_of(db, tmp_path / "a", 4, lambda image: seen(image, NEUTRAL), labels=["glad", "sad", "happy"])
    found = compare_jobs(db, a, b)
    assert found["confusion"] == [[0, 0, 4], [0, 0, 0], [0, 0, 0]]
    assert (found["agreement"], found["kappa"]) == (1.0, None)
    check = start_check(db, "local", a.public_id, size=10, seed=1)
    answer(db, check, rater="Ada", file="00000.jpg", face=0, emotion="neutral")
    assert compare_jobs(db, a, b)["checked"]["left_out"]["label_of_one_model"] == 1


def test_what_cannot_be_compared_says_why(db: Database, tmp_path: Path) -> None:
    a = job_of(db, tmp_path / "a", 3, by_a)
    other = job_of(db, tmp_path / "b", 3, lambda image: seen(image, HAPPY, content=b"o"))
    running = get_job(db, "local", expanded_job(db, tmp_path / "a", 3))
    for b, error, code in (
        (a, InvalidRequestError, "same_job"),
        (running, ConflictError, "job_not_finished"),
        (other, UnprocessableError, "nothing_to_compare"),
    ):
        with pytest.raises(error) as caught:
            compare_jobs(db, a, b)
        assert caught.value.code == code  # type: ignore[attr-defined]


def test_faces_are_matched_by_the_largest_overlap_first() -> None:
    def box(number: int, x: float, width: float = 10) -> Box:
        return Box(number, x, 0, width, 10, "happy", 0.9)

    matched, only_a, only_b = match([box(0, 0), box(1, 3), box(2, 50)], [box(0, 3), box(1, 0.5), box(2, 57)])
    assert [(one.number, other.number) for one, other in matched] == [(0, 1), (1, 0)]
    assert ([one.number for one in only_a], [other.number for other in only_b]) == ([2], [2])  # an overlap of 3 in 17
    assert match([], [box(0, 0)]) == ((), (), (box(0, 0),))


def test_mcnemar_as_others_compute_it() -> None:
    stats = pytest.importorskip("scipy.stats")
    for one in (0, 1, 3, 10, 25, 70):
        for other in (0, 1, 4, 9, 60, 300):
            wanted = stats.binomtest(one, one + other).pvalue if one + other else 1.0
            assert mcnemar(one, other) == pytest.approx(wanted, rel=1e-9)
    # Agresti, Categorical Data Analysis (2002), table 10.1: 150 against 86 (chi-squared 17.36; exact p = 3.7e-5)
    assert mcnemar(86, 150) == pytest.approx(3.7e-5, rel=0.03)
    assert mcnemar(3000, 3000) == 1.0
    assert 0 < mcnemar(2800, 3200) < 1e-6
