"""``mien workers``: who works, and letting one drain, pause or go on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cli.output import say, show_json, show_table
from mien.errors import DeadlineError, NotFoundError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mien.client import Client
    from mien.wire_system import Worker

POLL_S = 1.0


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
@click.pass_context
def workers(context: click.Context, as_json: bool) -> None:
    """List the live workers and what each can do; drain, pause or resume one."""
    if context.invoked_subcommand is not None:
        return
    with _client() as client:
        found = client.workers()
    if as_json:
        show_json([worker.model_dump(mode="json") for worker in found])
        return
    if not found:
        say("No worker was seen lately; `mien up` starts one.")
        return
    rows = [
        (
            *(w.name, w.device_name or w.device, w.engines, ",".join(w.precisions), len(w.models)),
            *(",".join(r[:8] for r in w.loaded or []) or "-", f"{w.images_per_s or 0:.1f}", _state(w), w.version),
        )
        for w in found
    ]
    headers = ("worker", "device", "engines", "precisions", "models", "loaded", "images/s", "state", "version")
    show_table(headers, rows, right=(2, 4, 6))


@workers.command()
@click.argument("name")
@click.option("--wait", is_flag=True, help="Come back when it holds nothing any more.")
@click.option("--timeout", type=click.FloatRange(min=0), default=600.0, show_default=True, help="Seconds to wait.")
def drain(name: str, wait: bool, timeout: float) -> None:
    """Let worker NAME finish what it holds and take no more: it can be stopped then without loss of time."""
    _set(name, "drained")
    if wait:
        _wait_until_drained(name, timeout)
        say(f"{name} holds nothing any more.")


@workers.command()
@click.argument("name")
def pause(name: str) -> None:
    """Have worker NAME hand back what it holds, uncharged, and wait until it is resumed."""
    _set(name, "paused")


@workers.command()
@click.argument("name")
def resume(name: str) -> None:
    """Let worker NAME work again."""
    _set(name, "active")


def _set(name: str, state: str) -> None:
    with _client() as client:
        client.set_worker_state(name, state)  # type: ignore[arg-type]
    said = {"drained": "finishes what it holds and takes no more", "paused": "puts its work down", "active": "works"}
    say(f"{name} {said[state]}; it hears of it within seconds.")


def _wait_until_drained(name: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        with _client() as client:
            found = [worker for worker in client.workers() if worker.name == name]
        if not found:
            raise NotFoundError(f"{name} has gone meanwhile; what it held is taken back when its leases run out.")
        if found[0].state == "drained":
            return
        if time.monotonic() > deadline:
            raise DeadlineError(f"{name} is still {found[0].state} after {timeout:g} s; it goes on draining.")
        time.sleep(POLL_S)


def _client() -> AbstractContextManager[Client]:
    from cli.system import readable_mien
    from mien.settings import load_settings

    return readable_mien(load_settings())


def _state(worker: Worker) -> str:
    wanted = {"active": ("active",), "paused": ("paused",), "drained": ("drained", "draining")}
    if worker.state in wanted.get(worker.wanted, (worker.state,)):
        return worker.state
    return f"{worker.state} (to be {worker.wanted})"


commands = [workers]
