"""Every column and field of every file that Mien writes is in docs/files.md, in order; the API writes them here."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arro3.io
import pytest
from arro3.core import DataType

from cli import compare
from tests.support.documents import first_cells, named, rows, section, text_of
from tests.support.ledger import LABELS, bad, control, make_files, ok, work_off
from tests.support.web import make_app, parts_of

PAGE = "docs/files.md"
FACES = "## Faces: CSV and Parquet"
LINES = "## Images: JSON Lines"
PARQUET = {"string": DataType.utf8(), "int32": DataType.int32(), "float64": DataType.float64()}
Get = Callable[[str], bytes]


@pytest.fixture(scope="module")
def get(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """Answers of the API about a job with two faces, one image that failed, and one answer of a rater."""
    folder: Path = tmp_path_factory.mktemp("files")
    app = make_app(folder)
    db, client = parts_of(app).db, app.test_client()
    photos = make_files(folder / "photos", 3)
    posted = client.post("/api/v1/jobs", json={"source": {"type": "folder", "path": str(photos)}}).get_json()
    control(db).expand()
    work_off(db, lambda image: bad(image) if image.path == b"00002.jpg" else ok(image))
    job = f"/api/v1/jobs/{posted['id']}"
    review = client.post(f"{job}/reviews", json={"mode": "check"}).get_json()["id"]
    face = client.get(f"/api/v1/reviews/{review}/faces?rater=Ada").get_json()["items"][0]
    answer = {"rater": "Ada", "file": face["file"], "face": face["face"], "emotion": LABELS[1]}
    assert client.put(f"/api/v1/reviews/{review}/answers", json=answer).status_code == 200

    def fetch(path: str) -> bytes:
        found = client.get(f"{job}/{path}")
        assert found.status_code == 200, found.text
        return found.data

    return fetch


def documented(heading: str) -> list[str]:
    """The first column of the table below a heading, with the labels of the model here for ``p_LABEL``."""
    names = first_cells(section(PAGE, heading))
    return [one for name in names for one in ([f"p_{x}" for x in LABELS] if name == "p_LABEL" else [name])]


@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("results.csv", FACES),
        ("images.csv", "## Images: CSV"),
        ("errors.csv", "## Failed images: CSV"),
        ("answers.csv", "## People's answers: CSV and JSON Lines"),
    ],
)
def test_columns_of_a_csv(get: Get, path: str, heading: str) -> None:
    head, first, *_ = get(path).decode().splitlines()
    assert head.split(",") == documented(heading)
    assert first


def test_columns_of_parquet_and_their_types(get: Get) -> None:
    table = arro3.io.read_parquet(io.BytesIO(get("results.parquet"))).read_all()
    types = {named(row[0])[0]: row[1] for row in rows(section(PAGE, FACES))}
    expected = [(name, PARQUET[types.get(name, types["p_LABEL"])]) for name in documented(FACES)]
    assert [(field.name, field.type) for field in table.schema] == expected


def test_fields_of_json_lines(get: Get) -> None:
    item = json.loads(get("results.jsonl").splitlines()[0])
    of_image, of_face = section(PAGE, LINES).split("Each face:")
    assert list(item) == first_cells(of_image)
    assert list(item["faces"][0]) == first_cells(of_face)


def test_fields_of_an_answer_in_json_lines(get: Get) -> None:
    item = json.loads(get("answers.jsonl").splitlines()[0])
    assert list(item) == documented("## People's answers: CSV and JSON Lines")


def test_fields_of_the_record_of_how_it_was_made(get: Get) -> None:
    record: dict[str, Any] = json.loads(get("provenance"))
    table = {named(row[0])[0]: row[1] for row in rows(section(PAGE, "## How they were made: JSON"))}
    assert list(record) == list(table)
    for field in ("source", "model", "detector", "crop", "input", "counts"):
        assert set(record[field]) == set(named(table[field].partition(";")[0])), field


def test_columns_of_a_comparison() -> None:
    assert list(compare.COLUMNS) == documented("## Differences of two jobs: CSV")


@pytest.mark.parametrize("page", ["docs/user.md", "README.md"])
def test_the_columns_that_other_pages_quote_are_these(page: str) -> None:
    quoted = [line for line in text_of(page).splitlines() if line.lstrip("`").startswith("file,face,")]
    assert quoted
    names = first_cells(section(PAGE, FACES))
    whole, short = ",".join(names).replace("p_LABEL", "p_LABEL..."), ",".join(names).replace("p_LABEL", "...")
    assert all(line.lstrip("`").startswith((whole, short)) for line in quoted), quoted
