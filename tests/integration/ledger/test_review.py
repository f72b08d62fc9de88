"""Reviews on both databases: the draw, blind answers, two modes apart, many raters at once, deletions."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from mien.answering import answer, undo
from mien.database import Database
from mien.errors import ConflictError, InvalidRequestError, NotFoundError, UnprocessableError
from mien.jobs import get_job
from mien.ledger.review import add_check, open_mend
from mien.receipts import get_receipt, request_delete, request_images
from mien.review import get_review, list_reviews, start_check, start_mend
from mien.review_export import answers_page
from mien.review_faces import faces_page
from mien.review_figures import review_figures
from mien.sampling import draw_sample
from mien.schema import corrections, faces, jobs, review_faces, reviews
from tests.support.ledger import assert_exact, control, expanded_job, work_off
from tests.support.review import all_faces, reviewed_job


def give(
    db: Database, review: object, item: dict[str, object], emotion: str | None, rater: str = "Ada"
) -> dict[str, object]:
    """Answer a face of a page."""
    return answer(db, review, rater=rater, file=str(item["file"]), face=int(str(item["face"])), emotion=emotion)  # type: ignore[arg-type]


def rows(db: Database, table: sa.Table) -> int:
    """How many rows a table holds."""
    with db.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_the_draw_is_random_stratified_and_can_be_repeated(db: Database, tmp_path: Path) -> None:
    job_id = reviewed_job(db, tmp_path / "a")
    job = get_job(db, "local", job_id)
    review = start_check(db, "local", job_id, size=40, seed=7)
    assert (review.mode, review.drawn, review.left, review.faces, review.seed) == (
        "check",
        40,
        40,
        job.counts["faces"],
        7,
    )
    with db.read() as connection:
        there = Counter(
            (row.emotion, 0.0 if row.confidence < 0.5 else 0.5 if row.confidence < 0.8 else 0.8)
            for row in connection.execute(sa.select(faces).where(faces.c.job_id == job.id))
        )
    assert {(s["label"], s["low"]): s["faces"] for s in review.strata} == dict(there)
    first = [(face["file"], face["face"]) for face in all_faces(db, review, "Ada", "all")]
    assert len(set(first)) == 40
    again = start_check(db, "local", job_id, size=40, seed=7)
    other = start_check(db, "local", job_id, size=40, seed=8)
    assert [(face["file"], face["face"]) for face in all_faces(db, again, "Ada", "all")] == first
    assert [(face["file"], face["face"]) for face in all_faces(db, other, "Ada", "all")] != first
    assert [found.public_id for found in list_reviews(db, job)] == [other.public_id, again.public_id, review.public_id]
    whole = start_check(db, "local", job_id, size=10_000)
    assert whole.drawn == job.counts["faces"] and all(s["faces"] == s["drawn"] for s in whole.strata)


def test_every_face_of_a_stratum_is_equally_likely(db: Database, tmp_path: Path) -> None:
    job_id = reviewed_job(db, tmp_path / "a", 12)
    job = get_job(db, "local", job_id)
    seen: Counter[tuple[object, object]] = Counter()
    with db.read() as connection:
        for seed in range(60):
            for face in draw_sample(connection, job.id, job.labels, 8, seed).faces:
                seen[face.image_id, face.face_number] += 1
        strata: dict[tuple[str, int], list[int]] = {}
        for row in connection.execute(sa.select(faces).where(faces.c.job_id == job.id)):
            band = 0 if row.confidence < 0.5 else 1 if row.confidence < 0.8 else 2
            strata.setdefault((row.emotion, band), []).append(seen[row.image_id, row.number])
    for counts in strata.values():
        middle = sum(counts) / len(counts)
        assert all(abs(count - middle) < 5 * max(middle, 1) ** 0.5 for count in counts), counts


def test_the_models_answer_is_hidden_until_the_rater_has_given_one(db: Database, tmp_path: Path) -> None:
    review = start_check(db, "local", reviewed_job(db, tmp_path / "a"), size=12)
    assert all(face["model"] is None and face["answer"] is None for face in all_faces(db, review, "Ada", "all"))
    item = faces_page(db, review, "Ada", limit=1).items[0]
    shown = give(db, review, item, "sad")
    assert shown["model"] is not None and shown["place"] == item["place"] == 0
    assert all_faces(db, review, "Ben", "all")[0]["model"] is None  # another rater has seen nothing
    assert [face["place"] for face in all_faces(db, review, "Ada")] == list(range(1, 12))  # goes on where it stopped
    assert [face["place"] for face in all_faces(db, review, "Ada", "answered")] == [0]


def test_the_first_answer_counts_and_a_later_one_stands_beside_it(db: Database, tmp_path: Path) -> None:
    job_id = reviewed_job(db, tmp_path / "a")
    review = start_check(db, "local", job_id, size=12)
    item = all_faces(db, review, "Ada")[3]
    model = give(db, review, item, None)["model"]["emotion"]  # type: ignore[index]
    changed = give(db, review, item, model)["answer"]
    assert changed["emotion"] == model and changed["first_emotion"] is None and changed["changes"] == 1  # type: ignore[index]
    assert give(db, review, item, model)["answer"]["changes"] == 1  # type: ignore[index] # the same again is no change
    figures = review_figures(db, review)
    assert (figures["answered"], figures["told"], figures["undecided"]) == (1, 0, 1)
    assert figures["raters"][0] | {"accuracy": None} == {
        "rater": "Ada", "answers": 1, "undecidable": 1, "changed": 1, "accuracy": None, "kappa": None,
    }  # fmt: skip
    with pytest.raises(ConflictError, match="first answer counts"):
        undo(db, review, rater="Ada", file=str(item["file"]), face=int(str(item["face"])))
    with db.read() as connection:  # never over the model's answer
        assert connection.execute(sa.select(faces.c.emotion).where(faces.c.emotion == model)).first() is not None


def test_a_whole_job_rated_gives_its_true_accuracy(db: Database, tmp_path: Path) -> None:
    """With every face answered the weighted figures are the plain ones."""
    review = start_check(db, "local", reviewed_job(db, tmp_path / "a", 30), size=10_000)
    right = total = 0
    for item in all_faces(db, review, "Ada"):
        agrees = int(str(item["place"])) % 3 > 0
        model = str(faces_page_model(db, item))
        give(db, review, item, model if agrees else ("sad" if model != "sad" else "happy"))
        right, total = right + agrees, total + 1
    figures = review_figures(db, review)
    assert figures["accuracy"]["value"] == pytest.approx(right / total)
    assert figures["accuracy"]["low"] < right / total < figures["accuracy"]["high"]
    assert figures["covered"] == 1.0 and figures["told"] == total == figures["faces"]
    assert sum(map(sum, figures["confusion"]["seen"])) == total
    for label in figures["per_label"]:
        place = figures["confusion"]["labels"].index(label["label"])
        column = [row[place] for row in figures["confusion"]["seen"]]
        assert label["precision"]["value"] == pytest.approx(column[place] / sum(column))


def faces_page_model(db: Database, item: dict[str, object]) -> str:
    """What the model says, by the ledger."""
    with db.read() as connection:
        return str(
            connection.execute(
                sa.text("SELECT emotion FROM results WHERE file = :file AND face = :face"),
                {"file": item["file"], "face": item["face"]},
            ).scalar_one()
        )


def test_a_sample_is_weighted_back(db: Database, tmp_path: Path) -> None:
    """A model that is right exactly when it is sure: the sample has too many doubtful faces, the figure has not."""
    job_id = reviewed_job(db, tmp_path / "a", 120)
    review = start_check(db, "local", job_id, size=40, seed=5)
    for item in all_faces(db, review, "Ada"):
        give(db, review, item, "sad")  # shows the model's answer
    for item in all_faces(db, review, "Ben"):
        shown = give(db, review, item, None, "Cleo")["model"]
        sure = shown["confidence"] >= 0.8  # type: ignore[index]
        label = shown["emotion"]  # type: ignore[index]
        give(db, review, item, label if sure else ("sad" if label != "sad" else "happy"), "Ben")
    figures = review_figures(db, get_review(db, "local", review.public_id))
    ben = next(rater for rater in figures["raters"] if rater["rater"] == "Ben")
    with db.read() as connection:
        job = get_job(db, "local", job_id)
        sure = connection.execute(
            sa.select(sa.func.count()).where(faces.c.job_id == job.id, faces.c.confidence >= 0.8)
        ).scalar_one()
    assert ben["accuracy"]["value"] == pytest.approx(sure / job.counts["faces"], abs=1e-9)
    assert figures["pairs"][0]["raters"] == ["Ada", "Ben"] and figures["pairs"][0]["faces"] == 40
    assert figures["pairs"][1]["faces"] == 0 and figures["pairs"][1]["kappa"] is None  # Cleo never decides


def test_mend_shows_the_least_certain_first_and_has_no_figures(db: Database, tmp_path: Path) -> None:
    job_id = reviewed_job(db, tmp_path / "a", 80)
    job = get_job(db, "local", job_id)
    review = start_mend(db, "local", job_id)
    assert start_mend(db, "local", job_id).public_id == review.public_id
    found = all_faces(db, review, "Ada")
    order = [face["model"]["confidence"] for face in found]  # type: ignore[index]
    assert len(found) == job.counts["faces"] and order == sorted(order)
    assert len({(face["file"], face["face"]) for face in found}) == len(found)
    for item in found[:30]:
        give(db, review, item, "sad")
    rest = all_faces(db, review, "Ben")  # shared work: what somebody mended waits for nobody
    assert [(face["file"], face["face"]) for face in rest] == [(face["file"], face["face"]) for face in found[30:]]
    last = faces_page(db, review, "Ada", state="answered", limit=1).items[0]
    assert last["file"] == found[29]["file"]
    undo(db, review, rater="Ada", file=str(last["file"]), face=int(str(last["face"])))
    assert all_faces(db, review, "Ada")[0]["file"] == last["file"]
    with pytest.raises(NotFoundError, match="not answered"):
        undo(db, review, rater="Ada", file=str(last["file"]), face=int(str(last["face"])))
    with pytest.raises(ConflictError, match="Draw a sample"):
        review_figures(db, review)
    with pytest.raises(InvalidRequestError):
        faces_page(db, review, "Ada", state="all")


def test_the_two_modes_are_never_mixed(db: Database, tmp_path: Path) -> None:
    job_id = reviewed_job(db, tmp_path / "a")
    check, mend = start_check(db, "local", job_id, size=10), start_mend(db, "local", job_id)
    item = all_faces(db, check, "Ada")[0]
    give(db, mend, item, "sad")
    assert all_faces(db, check, "Ada")[0]["model"] is None
    assert review_figures(db, check)["answered"] == 0
    give(db, check, item, "happy")
    exported = answers_page(db, get_job(db, "local", job_id)).items
    assert [(row["mode"], row["answer"]) for row in exported] == [("mend", "sad"), ("check", "happy")]
    assert exported[0]["stands_for"] is None and exported[1]["stands_for"] >= 1


def test_what_cannot_be_answered(db: Database, tmp_path: Path) -> None:
    job_id = reviewed_job(db, tmp_path / "a")
    review = start_check(db, "local", job_id, size=10)
    item = all_faces(db, review, "Ada")[0]
    with pytest.raises(UnprocessableError, match="no label 'joy'; it has happy, sad, neutral") as caught:
        give(db, review, item, "joy")
    assert caught.value.code == "unknown_label"
    for rater in ("", "  ", "a\nb", "x" * 81):
        with pytest.raises(InvalidRequestError, match="rater"):
            give(db, review, item, "sad", rater)
    with pytest.raises(NotFoundError) as missing:
        answer(db, review, rater="Ada", file="nothing.jpg", face=0, emotion="sad")
    assert missing.value.code == "unknown_image"
    drawn = {(face["file"], face["face"]) for face in all_faces(db, review, "Ada", "all")}
    mend = start_mend(db, "local", job_id)
    other = next(f for f in all_faces(db, mend, "Ada") if (f["file"], f["face"]) not in drawn)
    with pytest.raises(NotFoundError, match="not in the sample"):
        give(db, review, other, "sad")
    with pytest.raises(NotFoundError) as unknown:
        get_review(db, "another", review.public_id)
    assert unknown.value.code == "unknown_review"
    with pytest.raises(NotFoundError):
        start_check(db, "another", job_id)
    running = expanded_job(db, tmp_path / "b", 8)
    work_off(db, limit=1)
    with pytest.raises(ConflictError) as early:
        start_check(db, "local", running)
    assert early.value.code == "job_not_finished"
    assert len(all_faces(db, start_mend(db, "local", running), "Ada")) == 4


def test_many_raters_at_once(db: Database, tmp_path: Path) -> None:
    review = start_check(db, "local", reviewed_job(db, tmp_path / "a"), size=8)
    problems: list[BaseException] = []

    def rate(rater: str) -> None:
        try:
            for item in all_faces(db, review, rater):
                give(db, review, item, "sad", rater)
        except BaseException as error:
            problems.append(error)

    # two windows of the same rater, too
    threads = [threading.Thread(target=rate, args=(name,)) for name in ("Ada", "Ben", "Cleo", "Ada")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    figures = review_figures(db, get_review(db, "local", review.public_id))
    assert [(rater["rater"], rater["answers"]) for rater in figures["raters"]] == [
        ("Ada", 8),
        ("Ben", 8),
        ("Cleo", 8),
    ]
    assert all(pair["agreement"]["value"] == 1.0 for pair in figures["pairs"])


def test_a_deleted_image_leaves_the_sample_with_its_answers(db: Database, tmp_path: Path) -> None:
    job_id = reviewed_job(db, tmp_path / "a")
    review = start_check(db, "local", job_id, size=20)
    for item in all_faces(db, review, "Ada"):
        give(db, review, item, "sad")
    victim = str(all_faces(db, review, "Ada", "answered")[0]["file"])
    gone = sum(face["file"] == victim for face in all_faces(db, review, "Ada", "all"))
    receipt = request_images(db, "local", job_id, [victim])
    control(db).purge()
    assert get_receipt(db, "local", receipt.public_id).counts["corrections"] == gone
    assert_exact(db, job_id)
    now = get_review(db, "local", review.public_id)
    assert (now.drawn, now.left) == (20, 20 - gone)
    figures = review_figures(db, now)
    assert figures["answered"] == 20 - gone
    with pytest.raises(NotFoundError):
        answer(db, review, rater="Ada", file=victim, face=0, emotion="sad")


def test_a_deleted_job_takes_its_reviews_along(db: Database, tmp_path: Path) -> None:
    job_id = reviewed_job(db, tmp_path / "a")
    kept = start_mend(db, "local", reviewed_job(db, tmp_path / "b", 8))
    review = start_check(db, "local", job_id, size=20)
    for item in all_faces(db, review, "Ada"):
        give(db, review, item, "sad")
    mend = start_mend(db, "local", job_id)
    give(db, mend, all_faces(db, mend, "Ada")[0], None)
    receipt = request_delete(db, "local", job_id)
    with pytest.raises((NotFoundError, ConflictError)):
        start_mend(db, "local", job_id)
    with pytest.raises((NotFoundError, ConflictError)):
        get_review(db, "local", review.public_id)
    control(db).purge()
    assert get_receipt(db, "local", receipt.public_id).counts["corrections"] == 21
    assert (rows(db, corrections), rows(db, review_faces), rows(db, reviews), rows(db, jobs)) == (0, 0, 1, 1)
    assert get_review(db, "local", kept.public_id).mode == "mend"


def test_a_review_begins_in_no_job_that_is_being_deleted(db: Database, tmp_path: Path) -> None:
    """The job was seen, and a sample drawn, just before its deletion was asked for."""
    job = get_job(db, "local", reviewed_job(db, tmp_path / "a", 8))
    with db.read() as connection:
        sample = draw_sample(connection, job.id, job.labels, 4, 1)
    request_delete(db, "local", job.public_id)
    with pytest.raises(NotFoundError) as no_check:
        add_check(db, "local", job.id, sample, 1)
    with pytest.raises(NotFoundError) as no_mend:
        open_mend(db, "local", job.id)
    assert (no_check.value.code, no_mend.value.code) == ("unknown_job", "unknown_job")
    assert rows(db, reviews) == 0


def test_a_face_that_is_not_there_is_named_as_the_field_that_is_wrong(db: Database, tmp_path: Path) -> None:
    mend = start_mend(db, "local", reviewed_job(db, tmp_path / "a", 8))
    with pytest.raises(NotFoundError) as caught:
        answer(db, mend, rater="Ada", file="00000.jpg", face=99, emotion="sad")
    assert (caught.value.code, caught.value.field) == ("unknown_face", "face")


def test_answers_while_images_are_erased(db: Database, tmp_path: Path) -> None:
    """Each answer comes before the deletion, and goes with it, or after, and is told that there is no such face."""
    job_id = reviewed_job(db, tmp_path / "a", 16)
    review = start_check(db, "local", job_id, size=10_000)
    items = all_faces(db, review, "Ada")
    problems: list[BaseException] = []

    def rate() -> None:
        for item in items:
            try:
                give(db, review, item, "sad")
            except NotFoundError:
                pass
            except BaseException as error:
                problems.append(error)

    def erase() -> None:
        try:
            for number in range(0, 16, 2):
                request_images(db, "local", job_id, [f"{number:05d}.jpg"])
                control(db).purge()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=rate), threading.Thread(target=erase)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert_exact(db, job_id)
    now = get_review(db, "local", review.public_id)
    assert now.left == get_job(db, "local", job_id).counts["faces"]
    kept = {str(face["file"]) for face in all_faces(db, now, "Ada", "answered")}
    assert kept and all(int(name[:5]) % 2 for name in kept)
