"""A key sees and changes its own owner's jobs only: every operation and every page is asked with a foreign key.

The walk goes over what is served, not over a list: a new route is asked as soon as it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.routing import Rule

from mien.database import Database
from mien.jobs import get_job
from mien.keys import create_key
from mien.schema import images, jobs, metadata
from tests.support.ledger import bad, expanded_job, ok, work_off
from tests.support.web import document_of, make_app, parts_of

WITNESS = "ann-private"
"""In every name and value of Ann's: whoever sees it saw something of hers."""
SHARED = frozenset(
    {
        "static", "openapi", "health.healthz", "health.readyz", "metrics.metrics", "pages.sign_in",
        "pages.sign_in_submit", "pages.sign_out", "models.list_models", "models.get_model", "models.workers",
    }
)  # fmt: skip
"""What belongs to nobody."""


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


class World:
    """Ann's jobs, review, webhook and receipts, and the keys of Ann, of Bob and of an admin."""

    def __init__(self, folder: Path) -> None:
        self.app: Flask = make_app(folder, predict_timeout_s=0.2)
        self.db: Database = parts_of(self.app).db
        parts_of(self.app).is_stopping = lambda: True
        secrets = {
            name: create_key(self.db, name, owner=name, scope=scope)[1]
            for name, scope in (("ann", "submit"), ("bob", "submit"), ("root", "admin"))
        }  # type: ignore[misc]
        self.ann, self.bob, self.root = (bearer(secrets[name]) for name in ("ann", "bob", "root"))
        photos = folder / "photos" / WITNESS
        self.done = expanded_job(self.db, photos, 6, owner="ann", metadata={"note": WITNESS})
        work_off(self.db, lambda image: bad(image) if image.path == b"00003.jpg" else ok(image))
        self.running = expanded_job(self.db, photos, 4, owner="ann", metadata={"note": WITNESS})
        self.client = self.app.test_client()
        made = self.client.post("/api/v1/jobs", json={"source": {"type": "upload"}}, headers=self.ann)
        self.draft = made.json["id"]
        self.client.put(f"/api/v1/jobs/{self.draft}/images?path={WITNESS}.jpg", data=b"x", headers=self.ann)
        self.receipt = self.client.post("/api/v1/deletions", json={"sha256": "0f" * 32}, headers=self.ann).json["id"]
        self.others = self._others()

    def _others(self) -> dict[str, str]:
        """Ids of what else Ann made, where these routes are there."""
        found = {
            "receipt_id": self.receipt,
            "other_id": self.running,
            "delivery_id": "msg_0123456789abcdef",
            "name": "tiny",
        }
        served = document_of(self.app)["paths"]
        if "/api/v1/jobs/{job_id}/reviews" in served:
            body = {"mode": "mend"}
            answer = self.client.post(f"/api/v1/jobs/{self.done}/reviews", json=body, headers=self.ann)
            found["review_id"] = answer.json["id"]
        if "/api/v1/webhooks" in served:
            body = {"url": f"https://1.1.1.1/{WITNESS}", "events": ["job.completed"]}  # an address asks no name server
            answer = self.client.post("/api/v1/webhooks", json=body, headers=self.ann)
            found["webhook_id"] = answer.json["id"]
        return found

    def snapshot(self) -> dict[str, list[Any]]:
        """Every row of Ann's that a stranger must not change."""
        with self.db.read() as connection:
            return {
                table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
                for table in metadata.sorted_tables
                if table.name not in ("audit", "api_keys", "usage", "workers")
            }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.db.dispose()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests that only look."""
    made = World(tmp_path_factory.mktemp("calm"))
    yield made
    made.db.dispose()


def addresses(world: World, rule: Rule, job: str) -> str:
    """The rule's address with Ann's ids in it."""
    values = {"job_id": job, "filename": "mien.css", **world.others}

    def value(match: re.Match[str]) -> str:
        kind, _, name = match[1].rpartition(":")
        return str(values.get(name, "0" if kind == "int" else "other.jpg"))

    return re.sub(r"<([^>]+)>", value, rule.rule)


def bodies(rule: Rule) -> dict[str, Any]:
    """Something that each kind of route would take."""
    if rule.endpoint in ("uploads.upload",):
        return {"data": b"PK\5\6" + bytes(18), "headers": {"Content-Type": "application/zip"}}
    return {"json": {"sha256": "0f" * 32} if "deletions" in rule.rule else {}}


def walk(world: World) -> Iterator[tuple[str, str, Rule]]:
    """(method, address, rule) of everything that is served and belongs to somebody."""
    for rule in sorted(world.app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.endpoint in SHARED:
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            for job in (world.done, world.running, world.draft) if "job_id" in rule.arguments else (world.done,):
                yield method, addresses(world, rule, job), rule


def test_no_route_shows_or_changes_anything_of_another(world: World) -> None:
    before, asked = world.snapshot(), 0
    for method, path, rule in walk(world):
        sent = bodies(rule) if method not in ("GET",) else {}
        query = "?path=00001.jpg" if rule.endpoint in ("uploads.delete_images", "uploads.upload_one") else ""
        headers = world.bob | sent.pop("headers", {})
        answer = world.client.open(f"{path}{query}", method=method, headers=headers, **sent)
        asked += 1
        assert WITNESS not in answer.text.replace(path, ""), f"{method} {path} shows: {answer.text[:500]}"
        assert answer.status_code != 500, f"{method} {path}"
        if "job_id" in rule.arguments or world.receipt in path:
            assert answer.status_code in (400, 403, 404, 409, 415), f"{method} {path} gave {answer.status_code}"
            if answer.status_code == 404 and answer.is_json:
                assert answer.json["code"].startswith("unknown_"), answer.json
    documented = [(m, p) for p, operations in document_of(world.app)["paths"].items() for m in operations]
    assert asked > len(documented)
    after = world.snapshot()
    for name, rows in before.items():
        left = [row for row in rows if row not in after[name]]
        assert not left, f"{name} of Ann was changed by a stranger: {left}"


def test_lists_of_a_stranger_are_empty(calm: World) -> None:
    for path in ("jobs", "results", "receipts"):
        assert calm.client.get(f"/api/v1/{path}", headers=calm.bob).json["items"] == []
        assert calm.client.get(f"/api/v1/{path}", headers=calm.ann).json["items"]
    for path in ("jobs", "results", "summary"):
        answer = calm.client.get(f"/api/v1/{path}?owner=ann", headers=calm.bob)
        assert (answer.status_code, answer.json["code"]) == (403, "scope_needed")
        assert calm.client.get(f"/api/v1/{path}?owner=bob", headers=calm.bob).status_code == 200


def test_an_admin_opens_any_job_by_its_id_and_lists_by_owner(world: World) -> None:
    client, root = world.client, world.root
    assert client.get("/api/v1/jobs", headers=root).json["items"] == []
    listed = client.get("/api/v1/jobs?owner=ann", headers=root).json["items"]
    assert {job["id"] for job in listed} == {world.done, world.running, world.draft}
    assert client.get("/api/v1/results?owner=ann", headers=root).json["items"]
    assert client.get(f"/api/v1/jobs/{world.done}/results.csv", headers=root).status_code == 200
    assert client.post(f"/api/v1/jobs/{world.running}/cancel", headers=root).status_code == 202
    receipt = client.delete(f"/api/v1/jobs/{world.done}", headers=root)
    assert receipt.status_code == 202
    assert client.get(receipt.headers["Location"], headers=world.ann).status_code == 200  # it stays Ann's
    assert client.get(receipt.headers["Location"], headers=root).status_code == 200
    assert get_job(world.db, "ann", world.done).status == "deleting"


def test_a_reader_changes_nothing_of_its_own(world: World) -> None:
    reader = bearer(create_key(world.db, "reader", owner="ann", scope="read")[1])
    before = world.snapshot()
    for method, path, rule in walk(world):
        if method == "GET":
            continue
        sent = bodies(rule)
        headers = reader | sent.pop("headers", {})
        answer = world.client.open(path, method=method, headers=headers, **sent)
        assert answer.status_code == 403, f"{method} {path} gave {answer.status_code}"
    assert world.snapshot() == before


def test_ids_tell_nothing_apart(calm: World) -> None:
    """Of a job that is another's one hears what one hears of a job that never was."""
    for path in ("", "/results", "/results.csv", "/summary"):
        theirs = calm.client.get(f"/api/v1/jobs/{calm.done}{path}", headers=calm.bob)
        nobodys = calm.client.get(f"/api/v1/jobs/{calm.done[::-1]}{path}", headers=calm.bob)
        told = [re.sub(r"[0-9a-f]{16,}", "ID", answer.text) for answer in (theirs, nobodys)]
        assert (theirs.status_code, told[0]) == (nobodys.status_code, told[1])


def test_the_tables_that_are_watched_hold_something(calm: World) -> None:
    with calm.db.read() as connection:
        for table in (jobs, images):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() > 2
