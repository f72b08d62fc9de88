"""The audit log: every act of every caller, by ids alone; read by admins; dropped when its time has come."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from mien.audit import Act, write_audit
from mien.database import Database
from mien.errors import UnavailableError
from mien.keys import create_key
from mien.ledger.retention import expire_results
from mien.schema import audit
from tests.support.ledger import control, expanded_job, work_off
from tests.support.web import parts_of


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def admin(db: Database) -> dict[str, str]:
    return bearer(create_key(db, "root", owner="root", scope="admin")[1])


def entries(app: Flask, admin: dict[str, str], **query: Any) -> list[dict[str, Any]]:
    """The entries, oldest first."""
    assert parts_of(app).trail.wait_until_written(10)
    answer = app.test_client().get("/api/v1/audit", query_string=query, headers=admin)
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json["items"]))


def test_each_act_is_written_down_with_its_ids(
    app: Flask, client: FlaskClient, db: Database, photos: Path, admin: dict[str, str]
) -> None:
    info, secret = create_key(db, "ann", owner="ann")
    ann = bearer(secret)
    (photos / "who-is-this.jpg").write_bytes(b"x")
    job = client.post("/api/v1/jobs", json={"source": {"type": "folder", "path": str(photos)}}, headers=ann).json["id"]
    draft = client.post("/api/v1/jobs", json={"source": {"type": "upload"}}, headers=ann).json["id"]
    client.put(f"/api/v1/jobs/{draft}/images?path=secret-name.jpg", data=b"x", headers=ann)
    control(db).expand()
    work_off(db)
    client.get(f"/api/v1/jobs/{job}/results", headers=ann)
    client.get(f"/api/v1/jobs/{job}/results.csv", headers=ann)
    client.get(f"/api/v1/jobs/{job}/images.csv", headers=ann)
    client.post(f"/api/v1/jobs/{draft}/cancel", headers=ann)
    receipt = client.delete(f"/api/v1/jobs/{job}/images?path=who-is-this.jpg", headers=ann).json["id"]
    whole = client.delete(f"/api/v1/jobs/{job}", headers=ann).json["id"]
    content = client.post("/api/v1/deletions", json={"sha256": "0f" * 32}, headers=ann).json["id"]
    found = entries(app, admin)
    assert {(e["owner"], e["key_id"]) for e in found} == {("ann", info.id)}
    # what is written behind the request may come a moment later
    acts = [(e["action"], e["detail"], e["job"], e["receipt"]) for e in found]
    assert sorted(acts, key=str) == sorted(
        [
            ("submitted", "submit_job", job, None),
            ("submitted", "submit_job", draft, None),
            ("uploaded", "upload_one", draft, None),
            ("read", None, job, None),
            ("exported", "results_csv", job, None),
            ("exported", "images_csv", job, None),
            ("changed", "cancel", draft, None),
            ("deleted", "delete_images", job, receipt),
            ("deleted", "delete_job", job, whole),
            ("deleted", "delete_content", None, content),
        ],
        key=str,
    )
    with db.read() as connection:
        written = str(connection.execute(sa.select(audit)).all())
    assert "who-is-this" not in written and "secret-name" not in written and str(photos) not in written


def test_polling_is_one_entry_an_hour(
    app: Flask, client: FlaskClient, db: Database, photos: Path, admin: dict[str, str]
) -> None:
    job = expanded_job(db, photos, 3, owner="root")
    for path in ("", "/summary", "/results?limit=1", "/provenance", "?wait=0"):
        for _ in range(5):
            assert client.get(f"/api/v1/jobs/{job}{path}", headers=admin).status_code == 200
    for path in ("/healthz", "/openapi.json", "/api/v1/models", "/api/v1/receipts", "/api/v1/audit"):
        client.get(path, headers=admin)
    assert [(e["action"], e["job"]) for e in entries(app, admin)] == [("read", job)]
    for _ in range(3):
        client.get("/api/v1/jobs", headers=admin)
    assert [(e["action"], e["detail"], e["job"]) for e in entries(app, admin)][1:] == [("read", "jobs", None)]


def test_an_export_is_an_entry_each_time_and_its_parts_are_one(
    app: Flask, client: FlaskClient, db: Database, photos: Path, admin: dict[str, str]
) -> None:
    job = expanded_job(db, photos, 6, owner="root")
    work_off(db)
    path = f"/api/v1/jobs/{job}/results.csv"
    client.get(path, headers=admin)
    client.get(path, headers=admin)
    after = client.get(f"{path}?limit=1", headers=admin).headers["Mien-Next"]
    for _ in range(4):
        after = client.get(f"{path}?limit=1&after={after}", headers=admin).headers["Mien-Next"]
    assert [e["action"] for e in entries(app, admin, job=job)] == ["exported"] * 4


def test_what_is_refused_was_not_done(app: Flask, client: FlaskClient, db: Database, admin: dict[str, str]) -> None:
    client.get("/api/v1/jobs/0123456789", headers=admin)
    client.delete("/api/v1/jobs/0123456789", headers=admin)
    client.get("/api/v1/jobs", headers=bearer("wrong"))
    assert entries(app, admin) == []


def test_only_admins_read_it(client: FlaskClient, db: Database, admin: dict[str, str]) -> None:
    for scope in ("read", "submit"):
        key = bearer(create_key(db, scope, scope=scope)[1])  # type: ignore[arg-type]
        answer = client.get("/api/v1/audit", headers=key)
        assert (answer.status_code, answer.json["code"]) == (403, "scope_needed")
    assert client.get("/api/v1/audit", headers=admin).status_code == 200


def test_filters_and_pages(app: Flask, db: Database, admin: dict[str, str]) -> None:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    write_audit(
        db,
        [
            Act(
                "ann" if n % 2 else "bob",
                "exported" if n % 3 else "deleted",
                job=f"j{n}",
                at=start + dt.timedelta(days=n),
            )
            for n in range(12)
        ],
    )
    assert {e["owner"] for e in entries(app, admin, owner="ann")} == {"ann"}
    assert len(entries(app, admin, action="deleted")) == 4
    assert [e["job"] for e in entries(app, admin, job="j3")] == ["j3"]
    bounds = {"since": "2026-01-03T00:00:00Z", "until": "2026-01-06T00:00:00Z"}
    assert [e["job"] for e in entries(app, admin, **bounds)] == ["j2", "j3", "j4"]
    client, after, seen = app.test_client(), None, []
    while True:
        page = client.get(
            "/api/v1/audit", query_string={"limit": 5} | ({"after": after} if after else {}), headers=admin
        ).json
        seen += [e["job"] for e in page["items"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == [f"j{n}" for n in reversed(range(12))]
    for query in ("after=x", "action=stolen", "since=yesterday"):
        assert client.get(f"/api/v1/audit?{query}", headers=admin).status_code == 400


def test_signing_in_is_written_down(app: Flask, client: FlaskClient, db: Database, admin: dict[str, str]) -> None:
    info, secret = create_key(db, "ann", owner="ann")
    assert client.post("/sign-in", data={"key": "wrong"}).status_code == 401
    client.post("/sign-in", data={"key": secret})
    assert [(e["owner"], e["key_id"], e["action"]) for e in entries(app, admin)] == [("ann", info.id, "signed_in")]


def test_a_job_that_deletes_itself_is_written_down(
    app: Flask, db: Database, photos: Path, admin: dict[str, str]
) -> None:
    job = expanded_job(db, photos, 2, keep_results_s=0)
    work_off(db)
    expire_results(db)
    (entry,) = entries(app, admin, job=job)
    assert (entry["action"], entry["detail"], entry["owner"]) == ("deleted", "retention", "local")
    assert entry["receipt"] is not None


def test_it_is_kept_for_a_time_of_its_own(app: Flask, db: Database, tmp_path: Path, admin: dict[str, str]) -> None:
    now = dt.datetime.now(dt.UTC)
    write_audit(db, [Act("ann", "read", job=f"j{n}", at=now - dt.timedelta(hours=n)) for n in (1, 5, 30)])
    control(db, data_dir=tmp_path / "data", audit_keep_s=4 * 3600).sweep()
    assert [e["job"] for e in entries(app, admin)] == ["j1"]


def test_while_the_database_is_away_entries_wait(
    app: Flask, db: Database, monkeypatch: pytest.MonkeyPatch, admin: dict[str, str]
) -> None:
    away = [True]
    real = write_audit

    def write(database: Database, acts: list[Act]) -> None:
        if away[0]:
            raise UnavailableError("It is away.")
        real(database, acts)

    monkeypatch.setattr("web.trail.write_audit", write)
    monkeypatch.setattr("web.trail.AGAIN_S", 0.05)
    trail = parts_of(app).trail
    trail.now(Act("ann", "deleted", job="j1"))
    trail.once_an_hour(Act("ann", "read", job="j2"))
    assert not trail.wait_until_written(0.2)
    away[0] = False
    assert [e["job"] for e in entries(app, admin)] == ["j1", "j2"]
