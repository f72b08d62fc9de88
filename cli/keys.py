"""``mien keys``: API keys. They are made and closed on the ledger itself, by whoever may open it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click

from cli.output import say, show_json, show_table

if TYPE_CHECKING:
    from mien.database import Database
    from mien.keys import KeyInfo
    from mien.states import Scope

LIMIT = click.IntRange(0)


@click.group()
def keys() -> None:
    """API keys: needed as soon as Mien listens beyond loopback."""


@keys.command()
@click.argument("name")
@click.option("--owner", default="default", show_default=True, help="Whose jobs it sees; keys of one owner share them.")
@click.option(
    "--scope",
    type=click.Choice(["metrics", "read", "submit", "admin"]),
    default="submit",
    show_default=True,
    help="metrics: /metrics alone; read: see jobs; submit: make, change, delete them too; admin: also what is shared.",
)
@click.option(
    "--requests-per-minute", type=LIMIT, help="Requests in a minute. 0: no limit; unset: as `mien settings` says."
)
@click.option("--concurrent-jobs", type=LIMIT, help="Unfinished jobs at once.")
@click.option("--images-per-day", type=LIMIT, help="Images a day, beyond which no job is taken any more.")
@click.option("--bytes-per-day", type=LIMIT, help="Bytes uploaded a day.")
def create(name: str, owner: str, scope: Scope, **limits: int | None) -> None:
    """Make a key. It is shown this once and stored only as a hash."""
    from cli.ledger import open_ledger
    from mien import keys as api_keys
    from mien.settings import load_settings

    with open_ledger(load_settings()) as db:
        info, secret = api_keys.create_key(db, name, owner, scope=scope, limits=api_keys.Limits(**limits))
        _write_down(db, "key_created", info)
    say(
        f"Key {info.id} for {info.owner} ({info.scope}). Keep it: it is not shown again. "
        "Send it as `Authorization: Bearer KEY`."
    )
    click.echo(secret)


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_keys(as_json: bool) -> None:
    """List the keys, without their secrets."""
    from dataclasses import asdict

    from cli.ledger import open_ledger
    from mien import keys as api_keys
    from mien.settings import load_settings

    with open_ledger(load_settings()) as db:
        found = api_keys.list_keys(db)
    if as_json:
        show_json([asdict(key) for key in found])
        return
    if not found:
        say("There are no keys; `mien keys create NAME` makes one.")
        return
    rows = [
        (
            k.id,
            k.name,
            k.owner,
            k.scope,
            f"{k.prefix}...",
            _limits(k),
            _day(k.created_at),
            _day(k.last_used_at),
            _state(k),
        )
        for k in found
    ]
    show_table(("id", "name", "owner", "scope", "key", "limits", "made", "used", "state"), rows)


@keys.command()
@click.argument("key_id", type=int, metavar="ID")
def revoke(key_id: int) -> None:
    """Close a key for good."""
    from cli.ledger import open_ledger
    from mien import keys as api_keys
    from mien.settings import load_settings

    with open_ledger(load_settings()) as db:
        info = api_keys.revoke_key(db, key_id)
        _write_down(db, "key_revoked", info)
    say(f"Key {info.id} ({info.name}) opens nothing any more.")


def _write_down(db: Database, action: str, key: KeyInfo) -> None:
    from mien.audit import Act, write_audit

    write_audit(db, [Act(key.owner, action, key_id=key.id, detail="mien keys")])


def _limits(key: KeyInfo) -> str:
    """What a key's own limits are, in few words."""
    words = {"requests_per_minute": "requests/min", "concurrent_jobs": "jobs", "images_per_day": "images/day",
             "bytes_per_day": "bytes/day"}  # fmt: skip
    own = ((word, getattr(key.limits, name)) for name, word in words.items())
    return ", ".join(f"{value:,} {word}" if value else f"any {word}" for word, value in own if value is not None) or "-"


def _day(moment: dt.datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else "never"


def _state(key: KeyInfo) -> str:
    return f"revoked {_day(key.revoked_at)}" if key.revoked_at else "open"


commands = [keys]
