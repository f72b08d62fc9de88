"""``mien webhooks``: be told of the end of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.output import say, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from mien.client import Client
    from mien.wire_webhooks import Webhook, WebhookWithSecret

EVENT = click.Choice(["job.completed", "job.cancelled", "job.failed"])
_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group()
def webhooks() -> None:
    """Have an address of yours called when jobs end (Standard Webhooks)."""


@webhooks.command()
@click.argument("url")
@click.option("--event", "events", type=EVENT, multiple=True, help="Only these ends; repeat it. All without it.")
@click.option("--secret", help="A secret of your own (whsec_...); one is made without it.")
def create(url: str, events: tuple[str, ...], secret: str | None) -> None:
    """Register URL. The secret that its messages are signed with is shown this once."""
    with _client() as client:
        hook = client.create_webhook(url, events=events or None, secret=secret)
    say(f"Webhook {hook.id} is told of {', '.join(hook.events)}.")
    _show_secret(hook)


@webhooks.command("list")
@_json
def list_all(as_json: bool) -> None:
    """List your webhooks."""
    with _client() as client:
        found = client.webhooks()
    if as_json:
        show_json([hook.model_dump(mode="json") for hook in found])
        return
    if not found:
        say("There is no webhook; `mien webhooks create URL` makes one.")
        return
    show_table(("id", "url", "events", "state"), [(h.id, h.url, ",".join(h.events), _state(h)) for h in found])


@webhooks.command()
@click.argument("webhook_id")
@click.option("--url", help="Call this address from now on.")
@click.option("--event", "events", type=EVENT, multiple=True, help="Only these ends from now on; repeat it.")
@click.option("--enable/--disable", "enabled", default=None, help="Call it, or call it no more.")
def change(webhook_id: str, url: str | None, events: tuple[str, ...], enabled: bool | None) -> None:
    """Change a webhook; enabling one again sends what was held."""
    with _client() as client:
        hook = client.change_webhook(webhook_id, url=url, events=events or None, enabled=enabled)
    say(f"Webhook {hook.id}: {hook.url}, {', '.join(hook.events)}, {_state(hook)}.")


@webhooks.command()
@click.argument("webhook_id")
@click.option("--secret", help="A secret of your own (whsec_...); one is made without it.")
def rotate(webhook_id: str, secret: str | None) -> None:
    """Make a new secret; for a day messages are signed with the old one, too."""
    with _client() as client:
        hook = client.rotate_webhook_secret(webhook_id, secret=secret)
    say(f"The old secret of webhook {hook.id} signs along until {hook.old_secret_until:%Y-%m-%d %H:%M} UTC.")
    _show_secret(hook)


@webhooks.command()
@click.argument("webhook_id")
def delete(webhook_id: str) -> None:
    """Delete a webhook with its deliveries."""
    with _client() as client:
        client.delete_webhook(webhook_id)
    say(f"Webhook {webhook_id} is deleted.")


@webhooks.command()
@click.argument("webhook_id")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@_json
def deliveries(webhook_id: str, limit: int, as_json: bool) -> None:
    """List what was delivered to a webhook, or is to be, newest first."""
    from itertools import islice

    with _client() as client:
        found = list(islice(client.deliveries(webhook_id), limit))
    if as_json:
        show_json([delivery.model_dump(mode="json") for delivery in found])
        return
    rows: Iterator[tuple[Any, ...]] = (
        (d.id, d.event, d.job or "", d.state, d.attempts, _when(d.next_attempt_at), d.last_error or d.last_status or "")
        for d in found
    )
    show_table(("id", "event", "job", "state", "attempts", "next attempt", "last answer"), rows, right=(4,))


@webhooks.command()
@click.argument("webhook_id")
@click.argument("delivery_id")
def resend(webhook_id: str, delivery_id: str) -> None:
    """Send a delivery again, whatever became of it, with all its retries."""
    with _client() as client:
        client.send_again(webhook_id, delivery_id)
    say(f"Delivery {delivery_id} is sent again.")


def _client() -> AbstractContextManager[Client]:
    from cli.system import readable_mien
    from mien.settings import load_settings

    return readable_mien(load_settings())


def _show_secret(hook: WebhookWithSecret) -> None:
    say("Keep the secret: it is not shown again.")
    click.echo(hook.secret)


def _state(hook: Webhook) -> str:
    return "enabled" if hook.enabled else f"disabled ({hook.disabled_reason})"


def _when(moment: Any) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


commands = [webhooks]
