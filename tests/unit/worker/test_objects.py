"""Reading ahead: every image once, within the budget, and an end at once when there is trouble."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import worker.objects
from mien.errors import ImageError, ModelError
from mien.ledger.commit import ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.objects import StoreAwayError
from worker.objects import ObjectChunk
from worker.supervisor import Aborted

KB = 1024


class Storage:
    """Reads on threads, a little late, and what was held in memory meanwhile."""

    def __init__(self, contents: Mapping[int, bytes | Exception]) -> None:
        self.contents = contents
        self.threads = ThreadPoolExecutor(32)
        self.lock = threading.Lock()
        self.held = self.most = self.reading = self.most_reading = 0

    def read(self, image: LeasedImage) -> Future[bytes]:
        with self.lock:
            self.held += image.size or 0
            self.reading += 1
            self.most = max(self.most, self.held)
            self.most_reading = max(self.most_reading, self.reading)
        return self.threads.submit(self._get, image)

    def _get(self, image: LeasedImage) -> bytes:
        time.sleep(0.001 * (image.id % 5))
        with self.lock:
            self.reading -= 1
        found = self.contents[image.id]
        if isinstance(found, Exception):
            raise found
        return found

    def classify(self, images: Sequence[tuple[LeasedImage, bytes]], _: threading.Event) -> list[ImageOutcome]:
        time.sleep(0.002)
        with self.lock:
            self.held -= sum(image.size or 0 for image, _ in images)
        return [
            ImageOutcome(image.id, "no_face", file_bytes=len(data), sha256=hashlib.sha256(data).digest())
            for image, data in images
        ]


def leased(number: int, size: int | None = KB) -> LeasedImage:
    return LeasedImage(number, number, b"%d.jpg" % number, b"%d.jpg" % number, '"tag"', size)


def chunk(storage: Storage, images: Sequence[LeasedImage], **changes: object) -> ObjectChunk:
    given = {"read": storage.read, "look_up": None, "classify": storage.classify, "reads": 6,
             "abort": threading.Event()}  # fmt: skip
    return ObjectChunk(images=images, **(given | changes))  # type: ignore[arg-type]


def test_every_image_has_one_outcome_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.objects, "BUDGET_BYTES", 40 * KB)
    contents: dict[int, bytes | Exception] = {n: b"content %d" % n for n in range(100)}
    contents[7] = contents[3]
    contents[50] = ImageError("missing", "It is not there any more.")
    contents[51] = ImageError("changed", "It was changed.")
    storage = Storage(contents)
    known = hashlib.sha256(b"content 20").digest()
    asked: set[bytes] = set()

    def look_up(wanted: set[bytes]) -> Mapping[bytes, ImageOutcome]:
        asked.update(wanted)
        return {known: ImageOutcome(0, "no_face", sha256=known, cached=True)} if known in wanted else {}

    images = [leased(n, 64 * KB if n == 30 else KB) for n in range(100)]  # one is larger than the budget: alone
    outcomes = {o.image_id: o for o in chunk(storage, images, look_up=look_up).outcomes()}
    assert sorted(outcomes) == list(range(100))
    assert {i: o.error_code for i, o in outcomes.items() if o.error_code} == {50: "missing", 51: "changed"}
    assert [i for i, o in outcomes.items() if o.cached] in ([20, 7], [7, 20])
    assert all(o.sha256 == hashlib.sha256(contents[i]).digest() for i, o in outcomes.items() if o.outcome == "no_face")  # type: ignore[arg-type]
    assert len(asked) == 97  # each content once
    assert storage.most_reading <= 6
    assert storage.most <= 64 * KB + 4 * KB  # what was known, copied or failed is not handed over, and not counted back


def test_no_image_at_all() -> None:
    assert chunk(Storage({}), []).outcomes() == []


def test_a_storage_that_goes_away_ends_the_chunk_at_once() -> None:
    contents: dict[int, bytes | Exception] = {n: b"%d" % n for n in range(200)}
    contents[40] = StoreAwayError("the object storage does not answer")
    stopped: list[bool] = []

    def classify(images: Sequence[tuple[LeasedImage, bytes]], stop: threading.Event) -> list[ImageOutcome]:
        stopped.append(stop.wait(30))  # engines that would take long
        raise Aborted("the caller gave up")

    with pytest.raises(StoreAwayError):
        chunk(Storage(contents), [leased(n) for n in range(200)], classify=classify).outcomes()
    assert stopped
    assert all(stopped)


def test_an_abort_and_a_defective_model_end_it_too() -> None:
    contents: dict[int, bytes | Exception] = {n: b"%d" % n for n in range(50)}
    abort = threading.Event()
    abort.set()
    with pytest.raises(Aborted):
        chunk(Storage(contents), [leased(n) for n in range(50)], abort=abort).outcomes()

    def defective(images: object, stop: threading.Event) -> list[ImageOutcome]:
        raise ModelError("The model's files are not those that were installed.")

    with pytest.raises(ModelError):
        chunk(Storage(contents), [leased(n, None) for n in range(50)], classify=defective).outcomes()
