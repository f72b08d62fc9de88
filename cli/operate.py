"""Commands for whoever operates Mien: ``migrate``, ``settings``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.output import say, show_json

if TYPE_CHECKING:
    from mien.settings import Settings

SECRETS = ("bootstrap_key", "api_key")
SECRET_IN_URL = ("database_url", "broker_url")


@click.command()
def migrate() -> None:
    """Bring the ledger up to date, make the first API key from MIEN_BOOTSTRAP_KEY, install the shipped model.

    Safe to run again, and by several processes at once. `mien up` does it by itself.
    """
    from cli.ledger import prepare_ledger
    from mien.settings import load_settings

    for done in prepare_ledger(load_settings()):
        say(f"{done[0].upper()}{done[1:]}.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As a JSON object of name to value.")
@click.option("--markdown", is_flag=True, help="As the table in docs/settings.md (defaults, not values).")
def settings(as_json: bool, markdown: bool) -> None:
    """Show every setting with its value, default and meaning. Keys and passwords stay hidden."""
    from mien.settings import Settings, load_settings

    if markdown:
        click.echo(markdown_table(), nl=False)
        return
    current = load_settings()
    values = {name: shown_value(current, name) for name in Settings.model_fields}
    if as_json:
        show_json({variable(name): value for name, value in values.items()})
        return
    for name, field in Settings.model_fields.items():
        click.echo(f"{variable(name)} = {values[name] or '(empty)'}")
        click.echo(f"    {field.description} Default: {default_text(name)}.\n")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"MIEN_{name.upper()}"


def shown_value(current: Settings, name: str) -> str:
    """A setting's value for people, without secrets."""
    value = getattr(current, name)
    if name in SECRETS:
        return "(set, hidden)" if value else ""
    if name in SECRET_IN_URL and value:
        return _without_password(value)
    return _as_text(value)


def default_text(name: str) -> str:
    """A setting's default for people."""
    from mien.settings import Settings

    field = Settings.model_fields[name]
    if name == "data_dir":
        return "the user's data folder (Linux: ~/.local/share/mien)"
    return _as_text(field.get_default(call_default_factory=True)) or "(empty)"


def markdown_table() -> str:
    """The table of docs/settings.md."""
    from mien.settings import Settings

    lines = ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = default_text(name)
        shown = default if default.startswith(("(", "the ")) else f"`{default}`"
        lines.append(f"| `{variable(name)}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ":".join(str(item) for item in value)
    return str(value)


def _without_password(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":(hidden)@") if parts.password else url


commands = [migrate, settings]
