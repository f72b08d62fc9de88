"""One image at once: through a real broker and real engines, and nothing of it is left anywhere."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import redis
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from mien.database import Database
from mien.heartbeat import beat
from mien.models import ModelStore
from mien.predict import ImageRequest, connect
from mien.queue import PREDICT_QUEUES, create_celery
from mien.schema import metadata
from mien.settings import Settings
from tests.support.machine import SAMPLES
from tests.support.tiny_model import expected, make_tiny_model
from tests.support.web import close_app, make_app, make_settings, parts_of
from worker.predict import Predicting
from worker.supervisor import EnginePool

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def pool() -> Iterator[EnginePool]:
    engines = EnginePool(1)
    engines.start()
    yield engines
    engines.stop()


@pytest.fixture
def settings(tmp_path: Path, db: Database, redis_url: str) -> Settings:
    found = make_settings(
        tmp_path,
        database_url=db.url.render_as_string(hide_password=False),
        broker_url=redis_url,
        model="real",
        predict_timeout_s=20.0,
        predict_max_bytes=1 << 20,
    )
    ModelStore(found.models).install(make_tiny_model(tmp_path / "real", name="real"))
    return found


@pytest.fixture
def app(tmp_path: Path, settings: Settings) -> Iterator[Flask]:
    changes = settings.model_dump(
        include={"database_url", "broker_url", "model", "predict_timeout_s", "predict_max_bytes"}
    )
    app = make_app(tmp_path, **changes)
    yield app
    close_app(app)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def appear(db: Database, settings: Settings, *precisions: str, models: Sequence[str] | None = None) -> None:
    """A worker says that it lives."""
    installed = ModelStore(settings.models).revisions() if models is None else models
    beat(
        db, name="w", host="h", pid=1, device="cpu", precisions=precisions or ("fp32",), models=installed, engines=1,
        images_per_s=None, version="0",
    )  # fmt: skip


@pytest.fixture
def worker(db: Database, settings: Settings, pool: EnginePool) -> Iterator[Predicting]:
    """A real worker for single images, its Celery process included, in threads of this one."""
    from celery.contrib.testing.worker import start_worker

    appear(db, settings)
    broker = connect(settings.broker_url)
    celery = create_celery(settings.broker_url)
    predicting = Predicting(settings, celery, pool, ModelStore(settings.models), "cpu", lambda: broker)

    @celery.task(name="mien.predict", shared=False)  # type: ignore[untyped-decorator]
    def predict(ticket: str, asked: dict[str, object]) -> None:
        predicting.answer(ticket, ImageRequest.model_validate(asked))

    with start_worker(
        celery,
        pool="threads",
        concurrency=2,
        perform_ping_check=False,
        queues=[PREDICT_QUEUES["cpu"]],
        loglevel="ERROR",
    ):
        yield predicting
    broker.close()


def picture(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def post(client: FlaskClient, data: bytes, query: str = "?faces=whole", kind: str = "image/png") -> object:
    return client.post(f"/api/v1/predict{query}", data=data, content_type=kind)


def assert_nothing_is_left(db: Database, redis_url: str) -> None:
    with db.read() as connection:
        rows = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
            if table.name not in ("workers", "usage", "audit")  # who asked, not what
        }
    assert not any(rows.values()), rows
    with redis.Redis.from_url(redis_url) as broker:
        left = [key for key in broker.scan_iter() if not key.startswith((b"_kombu.binding", b"unacked_mutex"))]
    assert left == []


def test_its_faces_come_at_once_and_nothing_stays(
    client: FlaskClient, worker: Predicting, db: Database, redis_url: str, tmp_path: Path
) -> None:
    before = {path for path in (tmp_path / "data").rglob("*") if not path.name.startswith("mien.sqlite3")}
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda level: post(client.application.test_client(), picture(level)), range(0, 250, 25))
        )
    for level, answer in zip(range(0, 250, 25), answers, strict=True):
        assert answer.status_code in (200, 503), answer.text  # 503: more at once than there are places
        if answer.status_code == 200:
            (face,) = answer.json["faces"]
            assert list(face["probabilities"].values()) == pytest.approx(expected(level / 255), abs=1e-5)
            assert (face["face"], face["x"], face["width"], face["score"]) == (0, 0, 40, None)
            assert (answer.json["outcome"], answer.json["model"]["name"]) == ("ok", "real")
    assert any(answer.status_code == 200 for answer in answers)
    found = post(client, (SAMPLES / "two_people.png").read_bytes(), "?min_face_score=0.8").json
    assert [face["face"] for face in found["faces"]] == [0, 1]
    assert found["options"]["min_face_score"] == 0.8
    assert post(client, (SAMPLES / "cat.jpg").read_bytes(), "").json["outcome"] == "no_face"
    assert_nothing_is_left(db, redis_url)
    assert {path for path in (tmp_path / "data").rglob("*") if not path.name.startswith("mien.sqlite3")} == before


def test_a_client_can_ask(app: Flask, worker: Predicting, tmp_path: Path) -> None:
    from werkzeug.serving import make_server

    from mien.client import Client
    from mien.errors import UnprocessableError

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "a.png").write_bytes(picture(128))
    with Client(f"http://127.0.0.1:{server.server_port}") as mien:
        assert mien.predict(tmp_path / "a.png", faces="whole").faces[0].emotion == "grey"
        with pytest.raises(UnprocessableError) as caught:
            mien.predict(b"no image")
        assert caught.value.code == "not_an_image"
    server.shutdown()


REFUSED = [
    (b"text", "", "image/png", 422, "not_an_image"),
    (b"\x89PNG\r\n\x1a\n", "", "image/png", 422, "corrupt"),
    (b"", "", "image/png", 400, "empty_file"),
    (b"x", "", "text/plain", 415, "unsupported_media_type"),
    (b"x", "", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    (b"x" * ((1 << 20) + 1), "", "image/png", 413, "too_large"),
    (b"x", "?model=nobody", "image/png", 422, "unknown_model"),
    (b"x", "?precision=int8", "image/png", 422, "precision_unavailable"),
    (b"x", "?detect_size=63", "image/png", 400, "invalid_request"),
    (b"x", "?size=640", "image/png", 400, "invalid_request"),
]


def test_what_cannot_be_answered_is_told(client: FlaskClient, worker: Predicting, db: Database, redis_url: str) -> None:
    appear(db, worker.settings, "fp32", "int8")
    for data, query, kind, status, code in REFUSED:
        answer = post(client, data, query, kind)
        assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    assert_nothing_is_left(db, redis_url)


def test_without_a_worker_or_an_answer_or_a_broker(
    client: FlaskClient, tmp_path: Path, db: Database, redis_url: str, settings: Settings
) -> None:
    answer = post(client, picture(1))
    assert (answer.status_code, answer.json["code"]) == (503, "no_worker")
    assert int(answer.headers["Retry-After"]) > 0
    appear(db, settings, "bf16")
    assert post(client, picture(1)).json["code"] == "no_worker"
    appear(db, settings, models=["0" * 64])
    assert post(client, picture(1)).json["code"] == "no_worker_for_model"
    appear(db, settings)
    facts = {"database_url": settings.database_url, "model": "real", "predict_timeout_s": 0.3}
    mute = make_app(tmp_path, broker_url=redis_url, **facts).test_client()
    answer = post(mute, picture(1))
    assert (answer.status_code, answer.json["code"]) == (504, "predict_timeout")
    assert int(answer.headers["Retry-After"]) > 0
    with redis.Redis.from_url(redis_url) as broker:
        assert list(broker.scan_iter("mien:*")) == []
    deaf = make_app(tmp_path, broker_url="redis://127.0.0.1:1/0", **facts).test_client()
    answer = post(deaf, picture(1))
    assert (answer.status_code, answer.json["code"]) == (503, "no_broker")


def test_no_more_at_once_than_there_are_places(client: FlaskClient, app: Flask, worker: Predicting) -> None:
    from contextlib import ExitStack

    with ExitStack() as places:
        while places.enter_context(parts_of(app).predicting.place()):
            pass
        answer = post(client, picture(1))
    assert (answer.status_code, answer.json["code"]) == (503, "busy")
    assert post(client, picture(1)).status_code == 200


def test_a_late_worker_finds_nothing_and_leaves_nothing(
    worker: Predicting, settings: Settings, redis_url: str, db: Database
) -> None:
    asked = ImageRequest(
        model_revision=ModelStore(settings.models).get("real").revision, faces="whole", precision="fp32",
        detect_size=640, min_face_score=0.7, min_face=0,
    )  # fmt: skip
    worker.answer("0" * 32, asked)
    broker = connect(redis_url)
    broker.set("mien:predict:1", picture(5), px=1)
    worker.answer("1", asked)
    assert_nothing_is_left(db, redis_url)


def test_a_worker_without_the_model_leaves_the_image_to_another(
    client: FlaskClient, worker: Predicting, tmp_path: Path, db: Database, redis_url: str
) -> None:
    from dataclasses import replace

    asked: list[str] = []
    poor = replace(worker, store=ModelStore(tmp_path / "no models"))
    original = Predicting.answer

    def answer(self: Predicting, ticket: str, request: ImageRequest) -> None:
        asked.append(ticket)
        original(self if len(asked) > 2 else poor, ticket, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predicting, "answer", answer)
        assert post(client, picture(128)).json["faces"][0]["emotion"] == "grey"
    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert_nothing_is_left(db, redis_url)
