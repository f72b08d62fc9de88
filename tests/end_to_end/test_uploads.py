"""Images that are sent instead of named: by the command, by many requests at once, by clients that vanish."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from mien.client import Client
from tests.end_to_end.system import ByHand, Mien, grey, job_in, rows_of
from tests.support.tiny_model import LABELS, expected
from tests.support.uploads import tarred, zipped

pytestmark = pytest.mark.long

PNG_LEVELS = (20, 128, 240)


def uploaded_files(mien: Mien, job: str = "*") -> list[Path]:
    # os.walk passes over a folder that is deleted meanwhile
    folders = [mien.data / "uploads" / job] if job != "*" else list((mien.data / "uploads").glob("*"))
    return [Path(at) / name for folder in folders for at, _, names in os.walk(folder) for name in names]


def client_of(mien: Mien) -> Client:
    return Client(mien.url(), mien.key())


def test_a_folder_is_sent_and_comes_back_as_the_same_rows(mien: Mien, photos: Path, tmp_path: Path) -> None:
    names = ["dark.png", "sub/deep/grey.png", 'sub/"odd" %22 = 1\n😀.png', "back\\slash.png"]
    for number, name in enumerate(names):
        grey(photos / name, PNG_LEVELS[number % 3])
    Path(os.fsdecode(os.fsencode(photos) + b"/bytes\xff.png")).write_bytes((photos / names[0]).read_bytes())
    (photos / "no image.png").write_text("this is text")
    (photos / "notes.txt").write_text("passed over")
    (photos / "gone.png").symlink_to("/nowhere")

    sent, there = tmp_path / "sent.csv", tmp_path / "there.csv"
    said = mien.run("upload", photos, "--faces", "whole", "--csv", sent, "--metadata", "study=7", code=3)
    assert "6 files arrived" in said
    assert "not sent: gone.png" in said
    mien.run("classify", photos, "--faces", "whole", "--csv", there, code=3)
    expected_rows = [row for row in rows_of(there) if row["file"] != "gone.png"]
    assert rows_of(sent) == expected_rows
    assert len(expected_rows) == 6
    assert '"study": "7"' in (tmp_path / "sent.job.json").read_text()

    job = job_in(said)
    assert len(uploaded_files(mien, job)) == 6
    mien.run("delete", job, "--yes")
    assert uploaded_files(mien, job) == []


def test_many_requests_at_once_then_archives_then_one_job(mien: Mien, tmp_path: Path) -> None:
    images = {
        f"batch {number // 50:02d}/{number:05d}.png": png(PNG_LEVELS[number % 3], number) for number in range(1000)
    }
    batches = [dict(list(images.items())[start : start + 50]) for start in range(0, len(images), 50)]

    with client_of(mien) as client:
        job = client.create_draft(options={"faces": "whole"}).id

        def send(batch: dict[str, bytes]) -> int:
            with client.twin() as mine:
                return mine.upload(job, batch).files

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(send, batches)) == [50] * 20
        for pack, ending in ((zipped, "zip"), (lambda files: tarred(files, "w:gz"), "tgz")):
            archive = tmp_path / f"more.{ending}"
            archive.write_bytes(pack({f"{ending}/{n}.png": png(128, n) for n in range(20)} | {"readme.txt": b"x"}))
            assert client.upload_archive(job, archive).skipped == {"not_an_image": 1}
        arrived = {item.file: item.sha256 for item in client.uploads(job)}
        assert len(arrived) == 1040
        assert all(arrived[name] == hashlib.sha256(data).hexdigest() for name, data in images.items())
        assert client.submit(job).status == "queued"
        *_, end = client.wait(job)
        assert (end.status, end.counts.ok, end.counts.faces) == ("completed", 1040, 1040)
        rows = {row.file: row for row in client.results(job)}
        for name in list(images)[:6]:
            level = PNG_LEVELS[int(name[-9:-4]) % 3]
            assert rows[name].faces[0].emotion == LABELS[int(expected(level / 255).argmax())]
        client.delete(job)
        mien.wait_for(lambda: not uploaded_files(mien, job), "the uploads are deleted")


def test_a_job_and_its_images_in_one_request(mien: Mien) -> None:
    with client_of(mien) as client:
        key = secrets.token_hex(8)
        images = {f"key {n}": png(PNG_LEVELS[n], n) for n in range(3)}
        jobs = [
            client.submit_images(images, options={"faces": "whole"}, metadata={"n": 1}, idempotency_key=key).id
            for _ in range(2)
        ]
        assert jobs[0] == jobs[1]
        *_, end = client.wait(jobs[0])
        assert (end.status, end.counts.ok) == ("completed", 3)
        assert [row.file for row in client.results(jobs[0])] == list(images)


def test_an_upload_that_is_killed_goes_on_where_it_was(embedded: Mien, many: Callable[[int], Path]) -> None:
    folder = many(800)
    with embedded.up(), client_of(embedded) as client:
        killed = embedded.start("upload", folder, "--parallel", "1", "--faces", "whole")
        embedded.wait_for(lambda: any(job.source.files for job in client.jobs()), "some files have arrived")
        killed.kill()
        said = killed.communicate()[0]
        (job,) = client.jobs()
        assert (job.status, job.id) == ("draft", job_in(said))
        assert 0 < (job.source.files or 0) < 800
        before = {item.file: item.received_at for item in client.uploads(job.id)}
        changed, *kept = before
        (folder / changed).write_bytes(b"changed since")
        out = embedded.run("upload", folder, "--resume", job.id)
        now = {item.file: item.received_at for item in client.uploads(job.id)}
        assert len(now) == 800
        assert {name: now[name] for name in kept} == {name: before[name] for name in kept}
        assert now[changed] > before[changed]
        assert out == ""
        client.cancel(job.id)
        embedded.wait_for(lambda: not uploaded_files(embedded), "the uploads of a cancelled job are deleted")
        embedded.run("upload", folder, "--resume", job.id, code=1)


@pytest.mark.reliability
@pytest.mark.postgres
@pytest.mark.redis
def test_a_front_end_that_is_killed_under_an_upload_costs_nothing(by_hand: ByHand, many: Callable[[int], Path]) -> None:
    mien, folder = by_hand.mien, many(600)
    with client_of(mien) as client:
        sending = mien.start("upload", folder, "--parallel", "3", "--faces", "whole", "--wait")
        mien.wait_for(lambda: any(job.source.files for job in client.jobs()), "some files have arrived")
        by_hand.kill("web")
        by_hand.start("web")
        said = sending.communicate(timeout=90)[0]
        assert sending.returncode == 0, said
        mien.wait_for(client.is_alive, "the front end is back")
        job = client.job(job_in(said))
    assert (job.status, job.counts.total, job.counts.ok) == ("completed", 600, 600)
    assert len(uploaded_files(mien)) == 600


def test_clients_that_leave_or_fall_silent_leave_nothing(embedded: Mien) -> None:
    embedded.settings["MIEN_UPLOAD_TIMEOUT_S"] = "1"
    with embedded.up(), client_of(embedded) as client:
        job = client.create_draft().id
        for leaves in (True, False):
            caller = half_sent(embedded, f"/api/v1/jobs/{job}/images?path=half.jpg")
            embedded.wait_for(lambda: uploaded_files(embedded), "the file is arriving")
            if leaves:
                caller.close()
            embedded.wait_for(lambda: not uploaded_files(embedded), "nothing half-written remains", 15)
            if not leaves:
                assert b"upload_broken" in caller.recv(1 << 16)
                caller.close()
        assert list(client.uploads(job)) == []
        silent = half_sent(embedded, "/api/v1/jobs")
        assert b" 400 " in silent.recv(1 << 16)[:20]
        silent.close()
        jobs_left = [item.id for item in client.jobs()]
        assert jobs_left == [job]
        assert uploaded_files(embedded) == []


def half_sent(mien: Mien, path: str) -> socket.socket:
    """A connection on which an upload has begun."""
    address = urlsplit(mien.url())
    caller = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20)
    kind, method = ("multipart/form-data; boundary=b", "POST") if path.endswith("jobs") else ("image/jpeg", "PUT")
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {mien.key()}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: 1000000\r\n\r\n"
    )
    job = '--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n{}\r\n--b\r\nContent-Disposition: form-data; '
    start = job + 'name="x"; filename="x.jpg"\r\n\r\n' if method == "POST" else ""
    caller.sendall(head.encode() + start.encode() + b"x" * 300_000)
    return caller


def png(level: int, number: int) -> bytes:
    """An image of one grey, with bytes of its own."""
    file = io.BytesIO()
    Image.new("L", (16, 12), level).save(file, "PNG")
    return file.getvalue() + b"%d" % number
