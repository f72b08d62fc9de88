"""Exports over HTTP: parts by cursor, columns, gzip on the way and as a file, Parquet."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from mien.database import Database
from mien.ledger.retry import begin_retry
from mien.ledger.work import take_job
from tests.support.ledger import bad, expanded_job, ok, work_off


@pytest.fixture
def job(db: Database, photos: Path) -> str:
    public_id = expanded_job(db, photos, 20)
    work_off(db, lambda image: bad(image) if image.path.startswith(b"0000") else ok(image))
    return f"/api/v1/jobs/{public_id}"


@pytest.mark.parametrize("name", ["results.csv", "results.jsonl", "images.csv", "errors.csv"])
def test_a_download_in_parts(client: FlaskClient, job: str, name: str) -> None:
    whole = client.get(f"{job}/{name}")
    assert "Mien-Next" not in whole.headers
    found, query = b"", {"limit": "3"}
    for _ in range(100):
        part = client.get(f"{job}/{name}", query_string=query)
        assert part.status_code == 200
        found += part.data
        if "Mien-Next" not in part.headers:
            break
        query["after"] = part.headers["Mien-Next"]
    assert found == whole.data


def test_gzip_on_the_way_and_as_a_file(client: FlaskClient, job: str) -> None:
    plain = client.get(f"{job}/results.csv")
    assert "Content-Encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["Vary"]
    packed = client.get(f"{job}/results.csv", headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.mimetype == "text/csv"
    assert gzip.decompress(packed.data) == plain.data
    refused = client.get(f"{job}/results.csv", headers={"Accept-Encoding": "gzip;q=0"})
    assert refused.data == plain.data
    for kind in ("csv", "jsonl"):
        file = client.get(f"{job}/results.{kind}.gz", headers={"Accept-Encoding": "gzip"})
        assert (file.mimetype, file.headers.get("Content-Encoding")) == ("application/gzip", None)
        assert file.headers["Content-Disposition"].endswith(f'results.{kind}.gz"')
        assert gzip.decompress(file.data) == client.get(f"{job}/results.{kind}").data


def test_parquet(client: FlaskClient, job: str) -> None:
    answer = client.get(f"{job}/results.parquet?columns=file,emotion")
    assert answer.headers["Mien-Complete"] == "true"
    assert answer.data[:4] == answer.data[-4:] == b"PAR1"
    assert answer.data == client.get(f"{job}/results.parquet?columns=file,emotion").data
    assert client.head(f"{job}/results.parquet").status_code == 200


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("columns=nothing", "unknown_column", "columns"),
        ("columns=file,,status", "unknown_column", "columns"),
        ("columns=file,file", "invalid_request", "columns"),
        ("limit=0", "invalid_request", "limit"),
        ("limit=x", "invalid_request", "limit"),
        ("after=x", "bad_cursor", "after"),
        ("colums=file", "invalid_request", "colums"),
    ],
)
def test_what_cannot_be_exported_is_said(client: FlaskClient, job: str, query: str, code: str, field: str) -> None:
    for name in ("results.csv", "results.parquet", "errors.csv", "results.jsonl.gz"):
        answer = client.get(f"{job}/{name}?{query}")
        assert (answer.status_code, answer.json["code"], answer.json["field"]) == (400, code, field)


def test_a_parquet_export_of_a_job_that_is_retried_meanwhile_is_cut_off(
    client: FlaskClient, job: str, db: Database
) -> None:
    answer = client.get(f"{job}/results.parquet", buffered=False)
    client.post(f"{job}/retry")
    lease = take_job(db, "control", 60, purge=False)
    assert lease is not None
    begin_retry(db, lease)
    from mien.ledger.retry import retry_slice

    retry_slice(db, lease, 0, 4)
    with pytest.raises(Exception, match=r"[0-9a-f]{21}"):
        b"".join(answer.iter_encoded())
