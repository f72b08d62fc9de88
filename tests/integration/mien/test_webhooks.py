"""Webhooks: told once for each end of a job, signed so that others can check it, tried again, never astray."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from mien.database import Database
from mien.deliveries import RETRY_AFTER_S, Deliverer, Delivery, list_deliveries, send_again
from mien.errors import ConflictError, NotFoundError, UnprocessableError
from mien.jobs import request_cancel, request_retry
from mien.ledger.work import fail_job
from mien.receipts import request_delete
from mien.schema import deliveries, jobs, webhooks
from mien.settings import Settings, load_settings
from mien.webhooks import (
    change_webhook,
    create_webhook,
    delete_webhook,
    get_webhook,
    list_webhooks,
    rotate_secret,
)
from tests.support.ledger import bad, control, expanded_job, ok, work_off
from tests.support.receiver import Receiver, receiving

HERE = ("127.0.0.0/8",)


@pytest.fixture
def settings() -> Settings:
    return load_settings(webhook_networks=HERE, webhook_timeout_s=5.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def rows(db: Database) -> list[Any]:
    with db.read() as connection:
        return list(connection.execute(sa.select(deliveries).order_by(deliveries.c.id)))


def listed(db: Database, webhook: str) -> list[Delivery]:
    return list_deliveries(db, "local", webhook).items


def make_due(db: Database) -> None:
    """Move the clock of everything that waits: it is due now."""
    with db.write() as connection:
        connection.execute(
            deliveries.update().where(deliveries.c.state == "pending").values(next_attempt_at=db.now(connection))
        )


def test_each_end_of_a_job_is_written_once_for_whom_it_concerns(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver
) -> None:
    every, _ = create_webhook(db, settings, "local", receiver.url)
    failures, _ = create_webhook(db, settings, "local", receiver.url, events=["job.failed"])
    create_webhook(db, settings, "somebody else", receiver.url)
    done = expanded_job(db, tmp_path / "done", 9)
    work_off(db, lambda image: bad(image) if image.position == 0 else ok(image))
    cancelled = expanded_job(db, tmp_path / "cancelled", 9)
    request_cancel(db, "local", cancelled)
    control(db).purge()
    failed = expanded_job(db, tmp_path / "failed", 9)
    with db.read() as connection:
        job_id = connection.execute(sa.select(jobs.c.id).where(jobs.c.public_id == failed)).scalar_one()
    fail_job(db, job_id, "bad_model", "The model is gone.")
    fail_job(db, job_id, "bad_model", "The model is gone.")  # it has failed already
    control(db).purge()  # its images fail, the job does not end again
    told = [(item.event, item.job) for item in reversed(listed(db, every.public_id))]
    assert told == [("job.completed", done), ("job.cancelled", cancelled), ("job.failed", failed)]
    assert [item.event for item in listed(db, failures.public_id)] == ["job.failed"]
    assert len(rows(db)) == 4
    request_retry(db, "local", done)  # a second end is another event
    control(db).expand()
    work_off(db)
    assert [item.event for item in listed(db, every.public_id)].count("job.completed") == 2
    request_delete(db, "local", done)
    control(db).purge()  # what a webhook was told of the job goes with it
    assert {item.job for item in listed(db, every.public_id)} == {cancelled, failed}


def test_an_end_that_is_rolled_back_tells_nobody(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_webhook(db, settings, "local", receiver.url)
    expanded_job(db, tmp_path / "photos", 3)
    from mien.ledger import counters, events

    real = events.note_end

    def then_crash(*arguments: Any) -> int:
        real(*arguments)
        raise RuntimeError("killed between the delivery and the commit")

    monkeypatch.setattr(counters, "note_end", then_crash)
    with pytest.raises(RuntimeError):
        work_off(db)
    assert rows(db) == []
    monkeypatch.undo()
    with db.write() as connection:
        connection.execute(sa.text("UPDATE chunks SET state = 'due', token = NULL"))
    work_off(db)
    assert len(rows(db)) == 1


def test_a_receiver_can_check_what_it_got_with_the_published_library(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver
) -> None:
    hook, secret = create_webhook(db, settings, "local", f"{receiver.url}/in?box=1")
    job = expanded_job(db, tmp_path / "photos", 5, metadata={"study": "bücher"})
    work_off(db)
    assert Deliverer(db, settings).send_due() == 1
    (message,) = receiver.came
    assert message.path == "/in?box=1"
    content = Verifier(secret).verify(message.body, message.headers)
    assert content["type"] == "job.completed"
    assert content["data"]["id"] == job
    assert content["data"]["metadata"] == {"study": "bücher"}
    assert content["data"]["counts"]["ok"] == 5
    assert str(tmp_path) not in message.body.decode()
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(message.body.replace(b"completed", b"cancelled"), message.headers)
    (delivery,) = listed(db, hook.public_id)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("delivered", 1, 204)
    assert message.headers["webhook-id"] == delivery.public_id
    assert Deliverer(db, settings).send_due() == 0
    send_again(db, "local", hook.public_id, delivery.public_id)
    assert Deliverer(db, settings).send_due() == 1
    assert receiver.came[1].headers["webhook-id"] == delivery.public_id


def test_both_secrets_sign_while_they_overlap(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver
) -> None:
    hook, old = create_webhook(db, settings, "local", receiver.url)
    changed, new = rotate_secret(db, "local", hook.public_id)
    assert new != old
    assert changed.old_secret_until is not None
    expanded_job(db, tmp_path / "photos", 1)
    work_off(db)
    Deliverer(db, settings).send_due()
    for secret in (old, new):
        Verifier(secret).verify(receiver.came[0].body, receiver.came[0].headers)
    with db.write() as connection:  # the overlap is over
        kept = connection.execute(sa.select(webhooks.c.secrets)).scalar_one()
        kept[1]["until"] = "2020-01-01T00:00:00+00:00"
        connection.execute(webhooks.update().values(secrets=kept))
    send_again(db, "local", hook.public_id, listed(db, hook.public_id)[0].public_id)
    Deliverer(db, settings).send_due()
    Verifier(new).verify(receiver.came[1].body, receiver.came[1].headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(old).verify(receiver.came[1].body, receiver.came[1].headers)


def test_a_receiver_that_fails_all_the_time_is_tried_for_three_days_and_can_be_sent_to_again(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver
) -> None:
    hook, _ = create_webhook(db, settings, "local", receiver.url)
    expanded_job(db, tmp_path / "photos", 1)
    work_off(db)
    receiver.answers = [500] * (len(RETRY_AFTER_S) + 1)
    sender = Deliverer(db, settings)
    for pause in RETRY_AFTER_S:
        assert sender.send_due() == 1
        assert sender.send_due() == 0  # not before its time
        (row,) = rows(db)
        with db.read() as connection:
            wait = (row.next_attempt_at - db.now(connection)).total_seconds()
        assert pause - 10 <= wait <= pause * 1.1 + 1
        make_due(db)
    assert sender.send_due() == 1
    (delivery,) = listed(db, hook.public_id)
    assert (delivery.state, delivery.attempts) == ("failed", len(RETRY_AFTER_S) + 1)
    assert (delivery.last_status, delivery.last_error) == (500, "The receiver answered 500.")
    assert sum(RETRY_AFTER_S) > 24 * 3600
    send_again(db, "local", hook.public_id, delivery.public_id)
    sender.send_due()
    assert listed(db, hook.public_id)[0].state == "delivered"
    assert len({message.headers["webhook-id"] for message in receiver.came}) == 1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"hang_s": 3.0}, "No answer within 1 s."),
        ({"trickle": True}, "No answer within 1 s."),
        ({"answers": [302]}, "redirects are not followed"),
        ({"answers": [404]}, "answered 404"),
    ],
)
def test_troubles_of_a_receiver_are_told_and_cost_others_little(
    db: Database, tmp_path: Path, receiver: Receiver, trouble: dict[str, Any], said: str
) -> None:
    settings = load_settings(webhook_networks=HERE, webhook_timeout_s=1.0)
    hook, _ = create_webhook(db, settings, "local", receiver.url)
    with receiving() as good:
        create_webhook(db, settings, "local", good.url)
        expanded_job(db, tmp_path / "photos", 1)
        work_off(db)
        for name, value in trouble.items():
            setattr(receiver, name, copy(value))  # the receiver uses its answers up
        Deliverer(db, settings).send_due()
        assert len(good.came) == 1
    (delivery,) = listed(db, hook.public_id)
    assert delivery.state == "pending"
    assert said in (delivery.last_error or "")
    assert [message.path for message in receiver.came] == ["/"]


def test_gone_disables_and_what_waits_is_held_until_it_is_enabled(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver
) -> None:
    hook, _ = create_webhook(db, settings, "local", receiver.url)
    for number in range(2):
        expanded_job(db, tmp_path / str(number), 1)
    work_off(db)
    receiver.answers = [410]
    assert Deliverer(db, settings).send_due() == 1
    hook = get_webhook(db, "local", hook.public_id)
    assert hook.disabled_at is not None
    assert "410" in (hook.disabled_reason or "")
    assert [item.state for item in listed(db, hook.public_id)] == ["held", "failed"]
    with pytest.raises(ConflictError):
        send_again(db, "local", hook.public_id, listed(db, hook.public_id)[0].public_id)
    expanded_job(db, tmp_path / "later", 1)
    work_off(db)
    assert len(rows(db)) == 2  # a disabled one hears of nothing new
    assert change_webhook(db, settings, "local", hook.public_id, enabled=True).disabled_at is None
    assert Deliverer(db, settings).send_due() == 1


def test_an_address_that_turns_private_is_not_called(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver
) -> None:
    hook, _ = create_webhook(db, settings, "local", receiver.url)
    expanded_job(db, tmp_path / "photos", 1)
    work_off(db)
    Deliverer(db, load_settings(webhook_timeout_s=1.0)).send_due()  # the operator allows the network no more
    assert receiver.came == []
    assert "not a public address" in (listed(db, hook.public_id)[0].last_error or "")
    for url in ("https://127.0.0.1/x", "https://169.254.169.254/latest", "http://1.1.1.1/"):
        with pytest.raises(UnprocessableError) as caught:
            create_webhook(db, load_settings(), "local", url)
        assert caught.value.code == "webhook_address_refused"


def test_a_sender_that_dies_costs_a_minute(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver
) -> None:
    create_webhook(db, settings, "local", receiver.url)
    expanded_job(db, tmp_path / "photos", 1)
    work_off(db)
    dead = Deliverer(db, settings)
    assert len(dead._take()) == 1  # taken, and never heard of again
    assert Deliverer(db, settings).send_due() == 0
    make_due(db)
    assert Deliverer(db, settings).send_due() == 1
    assert len(receiver.came) == 1


def test_several_senders_share_what_is_due(
    db: Database, tmp_path: Path, settings: Settings, receiver: Receiver
) -> None:
    for _ in range(6):
        create_webhook(db, settings, "local", receiver.url)
    expanded_job(db, tmp_path / "photos", 1)
    work_off(db)
    threads = [threading.Thread(target=Deliverer(db, settings).send_due) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = [message.headers["webhook-id"] for message in receiver.came]
    assert sorted(sent) == sorted(row.public_id for row in rows(db))


def test_webhooks_are_the_owners_own_and_bounded(db: Database, settings: Settings) -> None:
    url = "http://127.0.0.1:9/"
    hook, secret = create_webhook(db, settings, "local", url)
    assert secret not in json.dumps([str(found) for found in list_webhooks(db, "local")])
    assert list_webhooks(db, "other") == []
    for step in (get_webhook, delete_webhook, rotate_secret):
        with pytest.raises(NotFoundError):
            step(db, "other", hook.public_id)
    changed = change_webhook(db, settings, "local", hook.public_id, url=f"{url}new", events=["job.failed"])
    assert (changed.url, changed.events) == (f"{url}new", ("job.failed",))
    delete_webhook(db, "local", hook.public_id)
    assert list_webhooks(db, "local") == []
    few = load_settings(webhook_networks=HERE, webhooks_per_owner=1)
    create_webhook(db, few, "local", url)
    with pytest.raises(ConflictError):
        create_webhook(db, few, "local", url)
