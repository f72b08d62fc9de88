"""``mien audit``: who submitted, read, exported, changed and deleted what. For admins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.output import say, show_json, show_table

if TYPE_CHECKING:
    from mien.wire import AuditAction

ACTIONS = (
    "submitted", "uploaded", "read", "exported", "reviewed", "changed", "deleted", "predicted", "signed_in",
    "key_created", "key_revoked",
)  # fmt: skip


@click.command()
@click.option("--owner", help="Only what this owner did.")
@click.option("--action", type=click.Choice(ACTIONS), help="Only this.")
@click.option("--job", help="Only what was done with this job.")
@click.option("--since", metavar="TIME", help="Only from this time on: 2026-03-01, or with a time and zone.")
@click.option("--until", metavar="TIME", help="Only before this time.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def audit(  # noqa: PLR0917 - click gives them by name
    owner: str | None,
    action: AuditAction | None,
    job: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show who did what with which job, newest first (needs a key of scope admin, where keys are in use).

    Ids and kinds, no file names. Reading, uploading, reviewing and single images stand there once an hour per key and
    job.
    """
    from cli.system import readable_mien
    from mien.settings import load_settings

    with readable_mien(load_settings()) as client:
        found = list(
            client.audit(
                owner=owner, action=action, job=job, since=_moment(since), until=_moment(until), limit=limit
            )
        )  # fmt: skip
    if as_json:
        show_json([entry.model_dump(mode="json") for entry in found])
        return
    if not found:
        say("The audit log has no such entry.")
        return
    rows = [
        (
            f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}",
            entry.owner,
            "" if entry.key_id is None else entry.key_id,
            entry.action,
            entry.detail or "",
            entry.job or "",
            entry.receipt or "",
        )
        for entry in found
    ]
    show_table(("at", "owner", "key", "action", "detail", "job", "receipt"), rows)


def _moment(text: str | None) -> str | None:
    """The time with a zone: this machine's where none is given."""
    import datetime as dt

    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time; write 2026-03-01 or 2026-03-01T12:00+01:00.") from None
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()


commands = [audit]
