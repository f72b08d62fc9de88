"""One image at once, a job once more, and deleting: with the real processes, and a look at what is left behind."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from PIL import Image

from mien.client import Client
from mien.errors import DeadlineError, NotFoundError, UnavailableError, UnprocessableError
from mien.predict import connect
from mien.wire import JobStatus
from tests.end_to_end.system import Mien, grey, kill
from tests.support.tiny_model import LABELS, expected

pytestmark = pytest.mark.long

TEXT_OF = {
    "images": "SELECT count(*) FROM images t WHERE t::text LIKE %s",
    "faces": "SELECT count(*) FROM faces t WHERE t::text LIKE %s",
    "jobs": "SELECT count(*) FROM jobs t WHERE t::text LIKE %s",
}
PLAIN = (b"_kombu.binding.", b"unacked_mutex")


@pytest.fixture
def client(running_mien: Mien) -> Iterator[Client]:
    with Client(running_mien.url(), running_mien.key()) as found:
        running_mien.wait_for(found.workers, "a worker")
        yield found


def broker_of(mien: Mien) -> redis.Redis:
    return connect(mien.settings.get("MIEN_BROKER_URL") or mien.files.broker_url.read_text().strip())


def last_state(client: Client, job: str) -> JobStatus:
    *_, last = client.wait(job)
    return last


def holds(mien: Mien, needle: bytes) -> list[str]:
    """Where in the data folder, the ledger or the broker these bytes lie."""
    found = [str(path) for path in mien.data.rglob("*") if path.is_file() and needle in path.read_bytes()]
    with broker_of(mien) as broker:
        for key in broker.scan_iter():
            if broker.type(key) == b"string" and needle in (broker.get(key) or b""):
                found.append(f"the broker's {key!r}")
            if broker.type(key) == b"list" and any(needle in item for item in broker.lrange(key, 0, -1)):
                found.append(f"the broker's {key!r}")
    if url := mien.settings.get("MIEN_DATABASE_URL"):
        with psycopg.connect(url) as connection:
            for table, query in TEXT_OF.items():
                if connection.execute(query, [f"%{needle.hex()}%"]).fetchone() != (0,):
                    found.append(f"the table {table}")
    return found


def test_one_image_is_answered_at_once_and_leaves_nothing(running_mien: Mien, client: Client) -> None:
    def png(level: int) -> bytes:
        file = io.BytesIO()
        Image.new("L", (40, 30), level).save(file, "PNG")
        return file.getvalue() + b"a mark that is looked for: %d" % level

    jobs_before = [job.id for job in client.jobs()]
    for level in (10, 128, 250):
        (face,) = client.predict(png(level), faces="whole").faces
        assert list(face.probabilities) == list(LABELS)
        assert list(face.probabilities.values()) == pytest.approx(expected(level / 255), abs=1e-5)
    with pytest.raises(UnprocessableError) as caught:
        client.predict(b"a mark that is looked for, but no image")
    assert caught.value.code == "not_an_image"
    assert [job.id for job in client.jobs()] == jobs_before
    assert holds(running_mien, b"a mark that is looked for") == []
    assert holds(running_mien, hashlib.sha256(png(10)).digest()) == []
    with broker_of(running_mien) as broker:
        left = {bytes(key) for key in broker.scan_iter() if not bytes(key).startswith(PLAIN)}
    assert not any(key.startswith(b"mien:predict") for key in left)


def test_one_image_overtakes_a_job(client: Client, many: Callable[[int], Path]) -> None:
    job = client.submit_folder(many(400)).id
    while client.job(job).counts.ok == 0:
        time.sleep(0.1)
    file = io.BytesIO()
    Image.new("L", (40, 30), 240).save(file, "PNG")
    answers = [client.predict(file.getvalue(), faces="whole").faces[0].emotion for _ in range(5)]
    assert answers == [LABELS[-1]] * 5
    assert client.job(job).counts.pending > 0
    client.cancel(job)
    assert last_state(client, job).counts.pending == 0


def test_again_with_other_options_then_deleted_slice_by_slice(client: Client, photos: Path) -> None:
    for number in range(6):
        grey(photos / f"{number}.png", 40 * number, size=(44, 33))  # contents that no other test's job has
    first = client.submit_folder(photos, faces="whole", metadata={"n": 1})
    assert last_state(client, first.id).counts.ok == 6
    same = last_state(client, client.rerun(first.id).id)
    assert (same.counts.ok, same.counts.cached, same.metadata) == (6, 6, {"n": 1})
    other = last_state(client, client.rerun(first.id, options={"faces": "detect"}).id)
    assert (other.counts.no_face, other.counts.cached) == (6, 0)

    receipt = client.wait_for_receipt(client.delete_images(first.id, "0.png", "1.png").id)
    assert (receipt.deleted.images, receipt.deleted.faces) == (2, 2)
    assert {image.file for image in client.results(first.id)} == {f"{n}.png" for n in range(2, 6)}
    content = hashlib.sha256((photos / "5.png").read_bytes()).hexdigest()
    receipt = client.wait_for_receipt(client.delete_content(content).id)
    assert (receipt.deleted.images, receipt.deleted.faces) == (3, 2)
    assert [client.job(job.id).counts.total for job in (first, same, other)] == [3, 5, 5]
    receipt = client.wait_for_receipt(client.delete(first.id).id)
    assert (receipt.deleted.jobs, receipt.deleted.images) == (1, 3)
    with pytest.raises(NotFoundError):
        client.job(first.id)
    assert (photos / "0.png").exists()
    # what was deleted is not in the cache any more: read anew
    again = last_state(client, client.submit_folder(photos, faces="whole").id)
    assert (again.counts.ok, again.counts.cached) == (6, 5)


def test_uploads_and_then_the_job_go_when_their_time_has_passed(
    running_mien: Mien, client: Client, photos: Path
) -> None:
    mark = b"a mark in an upload"
    for number in range(3):
        path = grey(photos / f"{number}.png", 40 * number)
        path.write_bytes(path.read_bytes() + mark)
    job = client.create_draft(options={"faces": "whole"}, keep_images=0, keep_results=4)
    client.upload(job.id, {path.name: path for path in photos.iterdir()})
    assert holds(running_mien, mark) != []
    client.submit(job.id)
    assert last_state(client, job.id).counts.ok == 3
    running_mien.wait_for(lambda: not holds(running_mien, mark), "the uploads are gone")
    running_mien.wait_for(lambda: job.id not in [found.id for found in client.jobs()], "the job is gone")
    receipt = next(found for found in client.receipts() if found.job == job.id)
    assert (receipt.reason, receipt.deleted.images) == ("retention", 3)


def test_the_commands_run_again_and_delete(running_mien: Mien, client: Client, photos: Path) -> None:
    for number in range(3):
        grey(photos / f"{number}.png", 40 * number + 7)
    first = client.submit_folder(photos, faces="whole").id
    last_state(client, first)
    said = running_mien.run("rerun", first, "--faces", "detect", "--wait")
    again = next(job for job in client.jobs() if job.id != first)
    assert again.id in said
    assert (again.options.faces, again.counts.no_face) == ("detect", 3)
    content = hashlib.sha256((photos / "2.png").read_bytes()).hexdigest()
    for arguments, images, faces in [
        ((first, "--image", "1.png"), 1, 1),
        (("--sha256", content), 2, 1),
        ((first,), 1, 1),
    ]:
        running_mien.run("delete", *arguments, "--yes")
        receipt = next(client.receipts())
        assert (receipt.deleted.images, receipt.deleted.faces) == (images, faces)
        assert receipt.finished_at is not None
    assert "no job" in running_mien.run("rerun", first, code=1)
    assert "holds no image" in running_mien.run("delete", again.id, "--image", "nothing.png", "--yes", code=1)
    assert "Name jobs" in running_mien.run("delete", again.id, "--sha256", content, "--yes", code=2)


@pytest.mark.reliability
def test_one_image_outlives_a_worker_that_hangs_and_a_broker_that_dies(embedded: Mien, photos: Path) -> None:
    embedded.settings["MIEN_PREDICT_TIMEOUT_S"] = "3"
    image = grey(photos / "a.png", 250).read_bytes()

    def left() -> list[bytes]:
        with broker_of(embedded) as broker:
            return list(broker.scan_iter("mien:predict*"))

    with embedded.up(), Client(embedded.url(), embedded.key()) as client:
        embedded.wait_for(client.workers, "a worker")
        assert client.predict(image, faces="whole").faces[0].emotion == LABELS[-1]
        worker = embedded.part("worker")
        worker.suspend()
        try:
            with pytest.raises(DeadlineError) as caught:
                client.predict(image, faces="whole")
            assert caught.value.code == "predict_timeout"
            assert left() == []
        finally:
            worker.resume()
        embedded.wait_for(lambda: answers(client, image), "the worker answers again")
        kill(embedded.part("broker"))
        embedded.wait_for(lambda: answers(client, image), "the new broker is used")
        kill(embedded.part("worker"))
        embedded.wait_for(lambda: answers(client, image), "the new worker answers")
        assert left() == []


def answers(client: Client, image: bytes) -> bool:
    try:
        return client.predict(image, faces="whole").outcome == "ok"
    except (UnavailableError, DeadlineError):
        return False
