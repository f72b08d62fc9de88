"""Model cards are safe whatever they hold; charts say the same in words; the pages of models and the system."""

from __future__ import annotations

import datetime as dt
import html
import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from mien.database import Database
from mien.keys import create_key
from mien.model_figures import figures_of
from mien.models import ModelStore
from mien.resources import resource
from mien.wire_system import Minute
from tests.support.ledger import bad, expanded_job, work_off
from tests.support.review import reviewed_job
from tests.support.web import install_model, make_app, parts_of
from web.review_charts import heat, interval_chart
from web.system_pages import card_of, throughput_chart

PAGE = {"Accept": "text/html,*/*;q=0.8"}
HOSTILE = """---
license: <script>alert(0)</script>
---

# A card

<script>alert(1)</script> and <img src=x onerror=alert(2)>

[press](javascript:alert(3)) [data](data:text/html,<script>alert(4)</script>) ![picture](https://elsewhere.example/x.png)

| a | b |
| --- | --- |
| <b>1</b> | 2 |

```
<script>alert(5)</script>
```
"""


def test_a_card_cannot_break_out() -> None:
    made = str(card_of(HOSTILE))
    for part in ("<script", "<img", "<b>", 'href="javascript', 'href="data', "onerror=alert(2)>"):
        assert part not in made, part
    assert "license" not in made  # the YAML head
    assert "<h3>A card</h3>" in made and "<table>" in made
    assert '<pre tabindex="0"' in made


def test_the_shipped_models_figures_are_of_its_revision(tmp_path: Path) -> None:
    folder = resource("models/default")
    model = ModelStore(tmp_path).install(folder)
    figures = figures_of(model)
    assert figures and figures[0].scores.images > 1000
    labels = len(model.labels)
    assert all(len(row) == labels for one in figures for row in one.scores.confusion)
    assert json.loads((folder / "figures.json").read_text())["revision"] == model.revision
    (model.folder / "figures.json").unlink()  # installed before it had figures
    assert figures_of(model) == () and figures_of(model, folder) == figures
    (model.folder / "figures.json").write_text('{"revision": 1')
    assert figures_of(model) == ()


def test_the_pages_of_models(client: FlaskClient, tmp_path: Path) -> None:
    page = client.get("/models", headers=PAGE).text
    assert "tiny" in page and ">default</span>" in page and "no live worker" in page
    model = install_model(tmp_path / "other-place", "hostile")
    (model.folder / "README.md").write_text(HOSTILE)
    store = parts_of(client.application).store
    installed = store.install(model.folder)
    shown = client.get(f"/models/{installed.revision}", headers=PAGE)
    assert shown.status_code == 200 and "<script>alert" not in shown.text and "A card" in shown.text
    assert "No figures are known" in shown.text
    missing = client.get("/models/nothing", headers=PAGE)
    assert missing.status_code == 404 and "There is no model" in missing.text


def test_choosing_the_default(tmp_path: Path) -> None:
    app = make_app(tmp_path, model="default")
    client = app.test_client()
    second = install_model(parts_of(app).settings.models, "second")
    page = client.get(f"/models/{second.revision}", headers=PAGE).text
    assert "Make it the default" in page
    _, reader = create_key(parts_of(app).db, "reader", scope="submit")
    refused = client.post(f"/models/{second.revision}/default", headers={"Authorization": f"Bearer {reader}"})
    assert refused.status_code == 403
    _, admin = create_key(parts_of(app).db, "admin", scope="admin")
    key = {"Authorization": f"Bearer {admin}"}
    assert client.post(f"/models/{second.revision}/default", headers=key).status_code == 303
    assert parts_of(app).store.default().name == "second"
    assert "Make it the default" not in client.get(f"/models/{second.revision}", headers=PAGE | key).text


def test_a_default_set_by_the_operator_stays(client: FlaskClient) -> None:
    refused = client.post("/models/tiny/default", headers=PAGE)
    assert refused.status_code == 409 and "MIEN_MODEL" in refused.text


def test_no_model_at_all(tmp_path: Path) -> None:
    app = make_app(tmp_path, models_dir=tmp_path / "empty", model="default")
    parts_of(app).store.shipped = None
    assert "No model is installed" in app.test_client().get("/models", headers=PAGE).text


def test_the_page_of_the_system(client: FlaskClient, db: Database, photos: Path) -> None:
    empty = client.get("/system", headers=PAGE).text
    assert "No worker is running" in empty and "The broker does not answer" in empty
    assert "No image was read in the last hour" in empty and "Nothing, in your recent jobs" in empty
    job = expanded_job(db, photos / "a", 8)
    work_off(db, bad)
    page = html.unescape(client.get("/system?part=1", headers=PAGE).text)
    assert "8 images in the last 60 minutes" in page
    assert "<code>corrupt</code>" in page and f"/jobs/{job}" in page
    assert "<html" not in page
    state = client.get("/api/v1/system").json
    assert state["work"]["jobs"] == {"completed": 1} and state["queues"]["control"] is None
    assert sum(minute["images"] for minute in state["throughput"]) == 8 and len(state["throughput"]) == 60
    assert state["trouble"]["images"] == [{"code": "corrupt", "images": 8, "jobs": 1, "last_job": job}]


def test_troubles_of_others_are_not_shown(client: FlaskClient, db: Database, photos: Path) -> None:
    expanded_job(db, photos / "a", 3)
    work_off(db, bad)
    _, secret = create_key(db, "other", owner="other")
    state = client.get("/api/v1/system", headers={"Authorization": f"Bearer {secret}"}).json
    assert state["trouble"] == {"images": [], "jobs": []}


def test_the_desk_without_script(client: FlaskClient, db: Database, photos: Path) -> None:
    job = reviewed_job(db, photos / "a", 8)
    form = {"mode": "check", "rater": "Ada <b>", "size": "3"}
    begun = client.post(f"/jobs/{job}/review", data=form, headers=PAGE)
    assert begun.status_code == 303
    page = client.get(begun.headers["Location"], headers=PAGE).text
    assert "Ada &lt;b&gt;" in page and "The model says" not in page and "0</strong> of 3 rated" in page
    for field, value, words in (("size", "0", "Draw from 1"), ("rater", " ", "visible characters")):
        answer = client.post(f"/jobs/{job}/review", data=form | {field: value}, headers=PAGE)
        assert answer.status_code == 400 and words in answer.text and 'aria-invalid="true"' in answer.text
    other = reviewed_job(db, photos / "b", 8)
    with db.read() as connection:
        import sqlalchemy as sa

        from mien.schema import images, jobs

        foreign = connection.execute(
            sa.select(images.c.id).join(jobs, jobs.c.id == images.c.job_id).where(jobs.c.public_id == other)
        ).scalars().first()  # fmt: skip
    address = begun.headers["Location"].partition("?")[0]
    wrong = {"rater": "Ada", "image": str(foreign), "face": "0", "emotion": "sad"}
    told = client.post(f"{address}?part=desk", data=wrong, headers=PAGE)
    assert "deleted meanwhile" in told.text  # a face of another job is none of this one
    assert client.post(address, data=wrong | {"image": "x"}, headers=PAGE).status_code == 400


def minute(images: int) -> Minute:
    return Minute(minute=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), images=images)


def test_throughput_in_columns_and_words() -> None:
    assert throughput_chart([minute(0)] * 3) is None
    chart = throughput_chart([minute(0), minute(600), minute(300)])
    assert chart is not None
    assert (chart.top, [column.height for column in chart.columns]) == (10, [100.0, 50.0])
    assert chart.sentence == "900 images in the last 3 minutes, in 2 of them; at most 10.0 images per second."


def test_intervals_in_words_and_shades() -> None:
    share = {"value": 0.5, "low": 0.25, "high": 0.75, "faces": 8}
    chart = interval_chart([("happy", share), ("sad", dict.fromkeys(("value", "low", "high")) | {"faces": 0})])
    assert chart.sentence == "happy: 50% (25 to 75), 8; sad: no face."
    first = chart.rows[0]
    assert first.dot is not None and first.low < first.dot < first.high and chart.rows[1].dot is None
    assert [heat(0, 0), heat(0, 5), heat(5, 5), heat(2, 8)] == ["h0", "h0", "h10", "h2"]


@pytest.mark.parametrize("path", ["/jobs/nothing/review", "/reviews/nothing", "/reviews/nothing/figures"])
def test_what_is_not_there(client: FlaskClient, path: str) -> None:
    assert client.get(path, headers=PAGE).status_code == 404
