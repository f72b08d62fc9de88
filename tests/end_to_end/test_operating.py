"""Operating Mien on PostgreSQL and Redis: health, metrics, logs, Celery's tools, webhooks, drain and pause, clocks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook as Verifier

from mien.client import Client
from mien.wire_system import Worker
from tests.end_to_end.conftest import production
from tests.end_to_end.system import ByHand, Mien, grey
from tests.support.receiver import Receiver, receiving
from tests.support.redis import free_port
from tests.support.servers import empty_database, running_redis
from tests.support.wrong_clock import moved_clock

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

SECRET_NAME = "a-name-nobody-may-read"


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, postgres_server: str) -> Iterator[ByHand]:
    """A production Mien that tells all it can."""
    folder = tmp_path_factory.mktemp("operated")
    with (
        empty_database(postgres_server) as database,
        running_redis(folder) as redis,
        production(
            folder,
            tiny_model,
            database,
            redis.url,
            {
                "MIEN_LOG_FORMAT": "json",
                "MIEN_LOG_LEVEL": "DEBUG",
                "MIEN_METRICS_PORT": str(free_port()),
                "MIEN_WEBHOOK_NETWORKS": "127.0.0.0/8",
                "MIEN_RUNNING_JOBS": "1",
            },
        ) as processes,
    ):
        yield processes


@pytest.fixture
def system(operated: ByHand) -> Mien:
    return operated.mien


@pytest.fixture
def client(system: Mien) -> Iterator[Client]:
    with Client(system.url(), system.key()) as found:
        yield found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def only_worker(client: Client) -> Worker:
    found = client.workers()
    assert len(found) == 1, found
    return found[0]


def metric(text: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def images(folder: Path, count: int, first: int = 0) -> Path:
    for number in range(count):
        grey(folder / f"{number}.png", (first + number) % 256, (40 + first, 30))
    return folder


def finished(system: Mien, client: Client, job: str) -> str:
    system.wait_for(lambda: client.job(job).is_final, "the job has ended")
    return client.job(job).status


def test_ready_says_what_is_missing(system: Mien, client: Client) -> None:
    header = {"Authorization": f"Bearer {system.key()}"}
    system.wait_for(client.workers, "the worker lives")

    def ready() -> requests.Response:
        return requests.get(f"{system.url()}/readyz", headers=header, timeout=10)

    system.wait_for(lambda: ready().status_code == 200, "it is ready")
    assert set(ready().json()["checks"]) == {"database", "broker", "worker"}
    worker = only_worker(client)
    client.set_worker_state(worker.name, "paused")
    system.wait_for(lambda: only_worker(client).state == "paused", "the worker is paused")
    answer = ready()
    assert answer.status_code == 503
    assert "paused" in answer.json()["checks"]["worker"]["detail"]
    assert answer.json()["checks"]["database"]["ok"]
    system.run("workers", "resume", worker.name)
    system.wait_for(lambda: ready().status_code == 200, "it is ready again")


def test_a_receiver_is_told_of_each_end_and_can_check_it(
    system: Mien, client: Client, receiver: Receiver, photos: Path
) -> None:
    secret = system.run("webhooks", "create", f"{receiver.url}/told").strip()
    (hook,) = client.webhooks()
    receiver.answers = [500]  # the first attempt fails; five seconds later it is tried again
    job = system.job_of(images(photos, 6), "whole")
    assert finished(system, client, job) == "completed"
    system.wait_for(lambda: len(receiver.came) == 2, "it was told, and told again")
    first, second = receiver.came
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    content = Verifier(secret).verify(second.body, second.headers)
    assert (content["type"], content["data"]["id"]) == ("job.completed", job)
    assert content["data"]["counts"]["ok"] == 6
    system.wait_for(lambda: next(client.deliveries(hook.id)).state == "delivered", "the delivery is written down")
    listed = system.run("webhooks", "deliveries", hook.id)
    assert "delivered" in listed
    assert job in listed
    system.run("webhooks", "resend", hook.id, first.headers["webhook-id"])
    system.wait_for(lambda: len(receiver.came) == 3, "it was sent again")
    new = system.run("webhooks", "rotate", hook.id).strip()
    receiver.answers = [410]
    system.run("webhooks", "resend", hook.id, first.headers["webhook-id"])
    system.wait_for(lambda: not client.webhook(hook.id).enabled, "gone is gone")
    for key in (secret, new):
        Verifier(key).verify(receiver.came[3].body, receiver.came[3].headers)
    assert "disabled" in system.run("webhooks", "list")
    system.run("webhooks", "delete", hook.id)
    assert client.webhooks() == []


def test_metrics_of_every_process_after_a_job(system: Mien, client: Client, photos: Path) -> None:
    port = int(system.settings["MIEN_METRICS_PORT"])
    before = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    assert finished(system, client, system.job_of(images(photos, 9, first=50), "whole")) == "completed"
    after = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text

    def grown(name: str, **labels: str) -> float:
        return metric(after, name, **labels) - metric(before, name, **labels)

    assert grown("mien_images_total", outcome="ok") == 9
    assert grown("mien_images_total", outcome="failed") == 1
    assert grown("mien_failures_total") == 1
    assert grown("mien_chunks_total", result="committed") >= 1
    assert grown("mien_stage_seconds_count", stage="decode", kind="worked") >= 1
    assert grown("mien_stage_seconds_sum", stage="classify") > 0
    assert grown("mien_commit_seconds_count") >= 1
    assert metric(after, "mien_engines_ready") >= 1
    assert metric(after, "mien_engine_resident_bytes") > 10_000_000
    control = requests.get(f"http://127.0.0.1:{port + 1}/metrics", timeout=10).text
    assert metric(control, "mien_sweep_seconds_count") > 1
    key = system.run("keys", "create", "prometheus", "--scope", "metrics").strip()
    address = f"{system.url()}/metrics"
    assert requests.get(address, timeout=10).status_code == 401
    web = requests.get(address, headers={"Authorization": f"Bearer {key}"}, timeout=10).text
    assert metric(web, "mien_ledger_up") == metric(web, "mien_broker_up") == 1
    assert metric(web, "mien_workers", device="cpu", state="active") == 1
    assert metric(web, "mien_jobs", status="completed") >= 1
    assert metric(web, "mien_http_requests_total", route="/api/v1/jobs", method="POST", status="2xx") >= 1


def test_celerys_own_tools_see_the_processes(system: Mien) -> None:
    def inspect(what: str) -> str:
        command = [sys.executable, "-m", "celery", "-A", "worker", "inspect", what, "-t", "5", "--json"]
        return subprocess.run(
            command, env=system.environment, capture_output=True, text=True, timeout=60, check=True, cwd=system.data
        ).stdout

    found = json.loads(inspect("ping"))
    assert sorted(name.partition("@")[0] for name in found) == ["control", "worker"]
    queues = json.loads(inspect("active_queues"))
    assert {q["name"] for name, all_of in queues.items() if name.startswith("worker") for q in all_of} == {
        "classify.cpu",
        "predict.cpu",
    }
    assert all("mien.classify" in tasks for tasks in json.loads(inspect("registered")).values())


def test_a_worker_drains_and_pauses_and_loses_nothing(
    system: Mien, client: Client, photos: Path, tmp_path: Path
) -> None:
    worker = only_worker(client)
    assert worker.device_name
    assert worker.precisions
    job = system.job_of(images(photos, 240, first=100), "whole")
    system.wait_for(lambda: client.job(job).counts.ok > 0, "some images are done")
    system.run("workers", "drain", worker.name, "--wait")
    assert only_worker(client).state == "drained"
    done = client.job(job)
    assert "drained" in system.run("workers")
    if not done.is_final:
        time.sleep(1)
        assert client.job(job).counts.ok == done.counts.ok
    system.run("workers", "resume", worker.name)
    assert finished(system, client, job) == "completed"
    again = system.job_of(images(tmp_path / "more", 240, first=150), "whole")
    system.wait_for(lambda: client.job(again).counts.ok > 0, "some images are done")
    system.run("workers", "pause", worker.name)
    system.wait_for(lambda: only_worker(client).state == "paused", "it is paused")
    if not client.job(again).is_final:
        system.wait_for(lambda: (client.job(again).notice or None) is not None, "the job says what holds it back")
        assert "paused" in (client.job(again).notice or pytest.fail("no notice")).detail
    system.run("workers", "resume", worker.name)
    assert finished(system, client, again) == "completed"
    assert client.job(again).counts.ok == 240
    said = system.run("workers", "drain", "nobody", code=1)
    assert "No worker 'nobody'" in said


def test_a_worker_whose_clock_is_an_hour_ahead_does_its_share(
    operated: ByHand, system: Mien, client: Client, photos: Path, tmp_path: Path
) -> None:
    right = only_worker(client)
    client.set_worker_state(right.name, "paused")
    system.wait_for(lambda: only_worker(client).state == "paused", "the first worker is paused")
    operated.start("ahead", kind="worker", MIEN_METRICS_PORT="0", **moved_clock(tmp_path, 3600))
    system.wait_for(lambda: len(client.workers()) == 2, "the second one lives")
    for number in range(2):  # the second job begins while that worker is idle: it has to hear a doorbell
        folder = images(photos / str(number), 30, first=200 + number)
        job = system.job_of(folder, "whole")
        assert finished(system, client, job) == "completed"
        assert client.job(job).counts.ok == 30
    assert all(abs((w.seen_at - w.started_at).total_seconds()) < 600 for w in client.workers())
    client.set_worker_state(right.name, "active")
    ahead = operated.processes.pop("ahead")
    ahead.kill()  # a spot machine that vanishes: its row goes stale within seconds
    ahead.wait()
    system.wait_for(lambda: len(client.workers()) == 1, "it is seen no more")


def test_the_logs_are_json_with_job_and_chunk_and_no_names_or_keys(system: Mien, client: Client, photos: Path) -> None:
    folder = images(photos / SECRET_NAME, 3, first=230)
    (folder / f"{SECRET_NAME}.jpg").write_bytes(b"\xff\xd8\xff broken")
    job = system.job_of(folder, "whole")
    assert finished(system, client, job) == "completed"
    requests.get(
        f"{system.url()}/api/v1/jobs/{job}/results",
        params={"prefix": SECRET_NAME},
        headers={"Authorization": f"Bearer {system.key()}"},
        timeout=10,
    )
    requests.get(f"{system.url()}/api/v1/jobs", headers={"Authorization": "Bearer mien_" + "x" * 43}, timeout=10)
    seen: dict[str, list[dict[str, object]]] = {}
    for name in ("web", "worker", "control"):
        text = (system.files.logs / f"{name}.log").read_text()
        lines = [json.loads(line) for line in text.splitlines() if line]  # each line is one object
        assert len(lines) > 3, name
        assert all({"time", "level", "logger", "process", "pid", "message"} <= set(line) for line in lines), name
        assert {line["process"] for line in lines} <= {name, "worker"}, name
        assert SECRET_NAME not in text, name
        assert system.key() not in text, name
        assert "x" * 43 not in text, name
        seen[name] = lines
    routes = {(line.get("route"), line.get("job")) for line in seen["web"]}
    assert ("/api/v1/jobs/<job_id>/results", job) in routes
    assert any(line.get("job") == job and isinstance(line.get("chunk"), int) for line in seen["worker"])
    assert any(line.get("job") == job for line in seen["control"])


def test_a_stopped_worker_says_farewell_in_json_too(operated: ByHand, system: Mien) -> None:
    operated.start("leaving", kind="worker", MIEN_METRICS_PORT="0")
    log = system.files.logs / "leaving.log"
    system.wait_for(lambda: " ready" in log.read_text(), "the worker is ready")
    leaving = operated.processes.pop("leaving")
    leaving.terminate()
    assert leaving.wait(timeout=30) == 0
    assert all(json.loads(line)["process"] == "worker" for line in log.read_text().splitlines())
