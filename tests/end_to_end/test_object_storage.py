"""Jobs on object storage, both ways to run Mien: done exactly, whatever happens to objects, keys and the server."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from PIL import Image

from mien.client import Client
from mien.models import ModelStore
from tests.end_to_end.conftest import WAYS, production
from tests.end_to_end.system import Mien, job_in, rows_of
from tests.support.s3_server import S3
from tests.support.servers import empty_database, running_redis

pytestmark = pytest.mark.s3


def picture(level: int) -> bytes:
    """A PNG of one grey: the tiny model can tell it."""
    out = io.BytesIO()
    Image.new("L", (40, 30), level).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def key_file(s3_server: S3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The credentials that every process of Mien finds in its environment."""
    return s3_server.credentials(tmp_path_factory.mktemp("aws") / "credentials")


@dataclass
class Running:
    """A Mien that runs, and its worker."""

    mien: Mien
    worker: Callable[[], psutil.Process]

    @contextmanager
    def worker_held(self) -> Iterator[None]:
        """The worker stands still for as long as a block."""
        process = self.worker()
        process.suspend()
        try:
            yield
        finally:
            process.resume()


@pytest.fixture(scope="module", params=WAYS)
def running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    s3_server: S3,
    key_file: Path,
) -> Iterator[Running]:
    """A Mien that may read ``s3://faces/study``, running for all tests here."""
    folder = tmp_path_factory.mktemp(request.param)
    storage = {
        "MIEN_ROOTS": "s3://faces/study",
        "MIEN_S3_ENDPOINT_URL": s3_server.url,
        "AWS_SHARED_CREDENTIALS_FILE": str(key_file),
        "MIEN_CHUNK_S": "0",
    }
    if request.param == "embedded":
        mien = Mien(folder / "data", {"MIEN_MODEL": "tiny", **storage})
        ModelStore(mien.data / "models").install(tiny_model)
        with mien.up():
            yield Running(mien, lambda: mien.part("worker"))
        return
    with (
        empty_database(request.getfixturevalue("postgres_server")) as database,
        running_redis(folder) as redis,
        production(folder, tiny_model, database, redis.url, storage) as processes,
    ):
        yield Running(processes.mien, lambda: psutil.Process(processes.processes["worker"].pid))


@pytest.fixture
def photos(s3: S3) -> Callable[[int], None]:
    """Puts so many pictures into ``study/``."""

    def put(count: int) -> None:
        for number in range(count):
            s3.put(f"study/{number:03d}.png", picture(number % 250))

    return put


def test_a_job_on_a_bucket_from_the_command_line(running: Running, s3: S3, tmp_path: Path) -> None:
    mien = running.mien
    names = {"a.png": 0, "new\nline.png": 120, "sub/b c+d%20.png": 250, "\u00fc/e.png": 1, "again.png": 0}
    for name, level in names.items():
        s3.put(f"study/{name}", picture(level))
    s3.put("study/broken.jpg", b"no picture")
    s3.put("study/notes.txt", b"")
    table = tmp_path / "results.csv"
    said = mien.run("classify", "s3://faces/study", "--faces", "whole", "--csv", table, code=3, cwd=tmp_path)
    job = job_in(said)
    rows = {row["file"]: row for row in rows_of(table)}
    assert set(rows) == {*names, "broken.jpg"}
    assert rows["broken.jpg"]["status"] == "failed"
    found = {name: rows[name]["emotion"] for name in names}
    assert found == {"a.png": "dark", "new\nline.png": "grey", "sub/b c+d%20.png": "bright", "\u00fc/e.png": "dark",
                     "again.png": "dark"}  # fmt: skip
    with Client(mien.url(), mien.key()) as client:
        status = client.job(job)
        assert (status.source.type, status.source.path) == ("folder", "s3://faces/study")
        assert (status.counts.total, status.counts.skipped) == (6, 1)
        again = client.rerun(job)
        *_, ended = client.wait(again.id)
        assert ended.counts.cached == 5  # the contents are known
    if "MIEN_API_KEY" in mien.settings:
        assert "MIEN_ROOTS" in mien.run("classify", "s3://faces/elsewhere", code=1, cwd=tmp_path)
    else:  # whoever owns the data folder may name any place
        assert "no image in s3://faces/elsewhere" in mien.run("classify", "s3://faces/elsewhere", code=4, cwd=tmp_path)


def test_objects_deleted_and_changed_in_mid_job_fail_alone_and_can_be_retried(
    running: Running, s3: S3, photos: Callable[[int], None]
) -> None:
    mien = running.mien
    photos(20)
    with Client(mien.url(), mien.key()) as client:
        mien.wait_for(client.workers, "a worker")
        with running.worker_held():
            job = client.submit_folder("s3://faces/study", faces="whole").id
            mien.wait_for(lambda: mien.counts(job)["total"] == 20, "the bucket is listed")
            s3.delete("study/003.png")
            s3.put("study/011.png", picture(255))
        *_, ended = client.wait(job)
        assert (ended.status, ended.counts.ok, ended.counts.failed) == ("completed", 18, 2)
        why = {row.file: row.error for row in client.results(job) if row.error}
        assert {file: error.code for file, error in why.items()} == {"003.png": "missing", "011.png": "changed"}
        assert "retry the job" in why["011.png"].detail
        assert client.summary(job).errors == {"missing": 1, "changed": 1}
        client.retry(job)
        *_, ended = client.wait(job)
        assert (ended.counts.ok, ended.counts.failed) == (19, 1)  # the changed one as it is now


def test_a_job_outlives_keys_that_expire_in_its_midst(
    running: Running, s3: S3, photos: Callable[[int], None], key_file: Path
) -> None:
    mien = running.mien
    photos(240)
    key = s3.new_key()
    s3.credentials(key_file, key)
    s3.guard(on=True)
    try:
        # the processes still hold the first key, which goes now: the file has the one that replaces it
        s3.revoke(s3.key)
        with Client(mien.url(), mien.key()) as client:
            job = client.submit_folder("s3://faces/study", faces="whole").id
            mien.wait_for(lambda: mien.counts(job)["ok"] > 0, "some images are done")
            s3.revoke(key)
            mien.wait_for(
                lambda: (n := client.job(job).notice) and n.code == "source_away", "the job says why it waits"
            )
            held_up = client.job(job)
            assert held_up.notice is not None
            assert "refuses the server's credentials" in held_up.notice.detail
            assert (held_up.status in ("expanding", "running"), held_up.counts.failed) == (True, 0)
            assert held_up.counts.pending > 0
            with s3.unguarded():
                s3.key = s3.new_key()
            s3.credentials(key_file)
            *_, ended = client.wait(job)
        assert (ended.status, ended.counts.ok, ended.counts.failed) == ("completed", 240, 0)
        said = mien.logs()
        assert key[1] not in said
        assert s3.key[1] not in said
    finally:
        s3.guard(on=False)
