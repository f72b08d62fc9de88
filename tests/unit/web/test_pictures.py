"""Pictures for the pages: upright, re-encoded, made elsewhere, kept within bounds, gone with what they show."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

import web.picture_pool
from mien.database import Database
from mien.errors import ImageError
from mien.gallery import image_of
from mien.jobs import get_job
from mien.keys import create_key
from mien.ledger.commit import FaceOutcome, ImageOutcome
from mien.ledger.lease import LeasedImage
from mien.receipts import request_delete
from mien.results import results_page
from mien.settings import Settings
from mien.thumbnails import ThumbnailCache, sweep_thumbnails, thumbnails_folder, thumbnails_root
from tests.support.ledger import bad, control, expanded_job, work_off
from tests.support.web import make_app, parts_of
from web.picture_pool import PicturePool
from web.pictures import EXTENSION

ORIENTATION = 274


@pytest.fixture
def picture_job(app: Flask, db: Database, photos: Path) -> Iterator[str]:
    """A job on one photograph that lies on its side, red above green once it is upright, and one that failed."""
    picture = Image.new("RGB", (300, 200), (0, 200, 0))
    picture.paste((200, 0, 0), (0, 0, 150, 200))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # upright after a quarter turn to the right
    picture.save(photos / "lying.jpg", exif=exif, quality=95)
    (photos / "broken.jpg").write_bytes(b"no")

    def answer(image: LeasedImage) -> ImageOutcome:
        if image.path == b"broken.jpg":
            return bad(image)
        digest = hashlib.sha256((photos / "lying.jpg").read_bytes()).digest()
        face = FaceOutcome(20, 10, 60, 60, 0.9, (0.7, 0.2, 0.1))
        return ImageOutcome(image.id, "ok", width=200, height=300, sha256=digest, faces=(face,))

    job_id = expanded_job(db, photos, 0)
    work_off(db, answer)
    yield job_id
    app.extensions[EXTENSION].pool.close()


def addresses(db: Database, job_id: str) -> dict[str, str]:
    items = results_page(db, get_job(db, "local", job_id)).items
    return {item["file"]: f"/jobs/{job_id}/images/{item['image_id']}" for item in items}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_pictures_are_upright_and_of_our_own_making(client: FlaskClient, db: Database, picture_job: str) -> None:
    place = addresses(db, picture_job)["lying.jpg"]
    for kind, size in (("thumbnail", (200, 300)), ("picture", (200, 300)), ("faces/0", (102, 102))):
        answer = client.get(f"{place}/{kind}")
        assert (answer.status_code, answer.mimetype) == (200, "image/jpeg"), answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        picture = opened(answer.data)
        assert picture.size == size and not picture.getexif()
    red, _, _ = opened(client.get(f"{place}/thumbnail").data).getpixel((100, 20))  # type: ignore[misc]
    _, green, _ = opened(client.get(f"{place}/thumbnail").data).getpixel((100, 280))  # type: ignore[misc]
    assert red > 150 and green > 150


def test_what_cannot_be_shown_says_why(client: FlaskClient, db: Database, photos: Path, picture_job: str) -> None:
    place = addresses(db, picture_job)
    assert client.get(f"{place['broken.jpg']}/thumbnail").json["code"] == "not_readable"
    assert client.get(f"{place['lying.jpg']}/faces/7").json["code"] == "unknown_face"
    assert client.get(f"/jobs/{picture_job}/images/999/thumbnail").json["code"] == "unknown_image"
    Image.new("RGB", (30, 20)).save(photos / "lying.jpg")
    assert client.get(f"{place['lying.jpg']}/picture").json["code"] == "changed"
    (photos / "lying.jpg").unlink()
    assert client.get(f"{place['lying.jpg']}/picture").json["code"] == "missing"


def test_a_folder_that_is_no_root_any_more_is_not_shown(tmp_path: Path, db: Database, picture_job: str) -> None:
    place = addresses(db, picture_job)["lying.jpg"]
    other = make_app(tmp_path, roots=(tmp_path,)).test_client()
    assert other.get(f"{place}/thumbnail").status_code == 200
    narrower = make_app(tmp_path, roots=(tmp_path / "data",)).test_client()
    refused = narrower.get(f"{place}/thumbnail")  # though it is kept by now
    assert (refused.status_code, refused.json["code"]) == (403, "source_outside_roots")
    page = narrower.get(f"/jobs/{picture_job}/gallery", headers={"Accept": "text/html"}).text
    assert "photographs are not shown" in page and "/thumbnail" not in page


def test_deleting_deletes_pictures(client: FlaskClient, app: Flask, db: Database, picture_job: str) -> None:
    settings = parts_of(app).settings
    place = addresses(db, picture_job)["lying.jpg"]
    client.get(f"{place}/thumbnail")
    client.get(f"{place}/faces/0")
    folder = thumbnails_folder(settings, picture_job)
    assert len(list(folder.rglob("*.jpg"))) == 2
    assert all(file.stat().st_mode & 0o077 == 0 for file in [folder.parent, *folder.rglob("*.jpg")])
    client.delete(f"/api/v1/jobs/{picture_job}/images", query_string={"path": "lying.jpg"})
    control(db, data_dir=settings.data_dir).purge()
    assert not list(folder.rglob("*.jpg"))
    assert client.get(f"{place}/thumbnail").status_code == 404


def test_a_deleted_job_leaves_no_picture(client: FlaskClient, app: Flask, db: Database, picture_job: str) -> None:
    settings = parts_of(app).settings
    client.get(f"{addresses(db, picture_job)['lying.jpg']}/thumbnail")
    request_delete(db, "local", picture_job)
    control(db, data_dir=settings.data_dir).purge()
    assert not thumbnails_folder(settings, picture_job).exists()
    # one that was being made meanwhile is not kept
    ThumbnailCache(settings).put(db, picture_job, 1, "t480", b"late")
    assert not list(thumbnails_root(settings).rglob("*.jpg"))


def test_what_a_crash_left_is_swept(app: Flask, db: Database, picture_job: str) -> None:
    settings = parts_of(app).settings
    image_id = results_page(db, get_job(db, "local", picture_job)).items[0]["image_id"]
    for public_id, number in ((picture_job, image_id), (picture_job, 4711), ("gone", 1)):
        shard = thumbnails_folder(settings, public_id) / f"{number % 256:02x}"
        shard.mkdir(parents=True)
        (shard / f"{number}-t480.jpg").write_bytes(b"x")
    sweep_thumbnails(db, settings)
    assert [file.name for file in thumbnails_root(settings).rglob("*.jpg")] == [f"{image_id}-t480.jpg"]
    assert image_of(db, get_job(db, "local", picture_job), image_id)


def test_the_cache_stays_within_its_bound(db: Database, tmp_path: Path, picture_job: str) -> None:
    settings = Settings(data_dir=tmp_path / "data", thumbnail_cache_bytes=10_000)
    cache = ThumbnailCache(settings)
    image_id = results_page(db, get_job(db, "local", picture_job)).items[0]["image_id"]
    for number in range(30):
        cache.put(db, picture_job, image_id, f"f{number}", bytes(1000))
    until = time.monotonic() + 10
    while cache._cutting and time.monotonic() < until:
        time.sleep(0.01)
    cache.put(db, picture_job, image_id, "last", bytes(1000))
    while cache._cutting and time.monotonic() < until:
        time.sleep(0.01)
    assert sum(file.stat().st_size for file in thumbnails_root(settings).rglob("*.jpg")) <= 11_000
    assert cache.get(picture_job, image_id, "last") == bytes(1000)
    none = ThumbnailCache(Settings(data_dir=tmp_path / "none", thumbnail_cache_bytes=0))
    none.put(db, picture_job, image_id, "t480", b"x")
    assert not (tmp_path / "none").exists()


def test_a_process_that_dies_or_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = PicturePool(1)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (1, 2, 3)).save(buffer, "PNG")
    wanted = {"max_side": 20, "max_pixels": 10_000}
    try:
        made = pool.render(buffer.getvalue(), wanted)
        assert opened(made.data).size == (20, 15) and (made.width, made.height) == (40, 30)
        with pytest.raises(ImageError) as caught:
            pool.render(b"\xff\xd8\xff\xe0 not whole", wanted)
        assert caught.value.code in ("truncated", "corrupt")
        process = pool._free.queue[0]
        assert process is not None
        environment = Path(f"/proc/{process._process.pid}/environ")
        if environment.exists():
            assert b"MIEN_" not in environment.read_bytes()
        os.kill(process._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(web.picture_pool, "ANSWER_S", 0.3)
        with pytest.raises(ImageError) as caught:
            pool.render(buffer.getvalue(), wanted)
        assert caught.value.code == "decoder_crashed"
        monkeypatch.setattr(web.picture_pool, "ANSWER_S", 20.0)
        assert pool.render(buffer.getvalue(), wanted).data == made.data
    finally:
        pool.close()


def test_pictures_do_not_use_up_a_key_s_requests(tmp_path: Path) -> None:
    app = make_app(tmp_path, requests_per_minute=3)
    _, secret = create_key(parts_of(app).db, "looker")
    client = app.test_client()
    key = {"Authorization": f"Bearer {secret}"}
    for _ in range(5):
        assert client.get("/jobs/none/images/1/thumbnail", headers=key).status_code == 404
    statuses = [client.get("/api/v1/jobs", headers=key).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
