"""The command: every look in turn, and how the findings are shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from cli.doctor.finding import Finding, Look
from cli.output import show_json
from mien.errors import MienError, SettingsError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option(
    "--report",
    is_flag=True,
    help="A block to paste into a bug report instead: versions, platform, error codes; no name, path, address or key.",
)
def doctor(as_json: bool, report: bool) -> None:
    """Look at everything Mien needs: what works, what is missing, and the mend. Exit code 1 if something is bad."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json and not report:
            show(finding)
    if report:
        from cli.doctor.report import facts_of, show_report

        facts = facts_of(findings)
        if as_json:
            show_json(facts)
        else:
            show_report(facts)
        return
    if as_json:
        show_json([asdict(finding) for finding in findings])
    raise click.exceptions.Exit(1 if any(finding.state == "bad" for finding in findings) else 0)


def show(finding: Finding) -> None:
    """One finding, for people."""
    click.echo(f"{finding.state.ljust(4)}  {finding.name}: {finding.found}")
    if finding.mend:
        click.echo(f"      mend: {finding.mend}")


def examine() -> Iterator[Finding]:
    """Every finding, in the order in which things depend on each other. Settings that cannot be used end it."""
    from cli.doctor import configuration, machine
    from mien.settings import load_settings

    yield from machine.python()
    yield from configuration.variables()
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Finding("bad", "settings", error.detail, "correct it; until then nothing else can be looked at")
        return
    for name, look in _looks():
        try:
            yield from look(settings)
        except MienError as error:
            yield Finding("bad", name, error.detail, "see the sentence above")


def _looks() -> list[tuple[str, Look]]:
    from cli.doctor import configuration, engine, machine, services

    return [
        ("data folder", configuration.data_folder),
        ("roots", configuration.roots),
        ("database", services.database),
        ("broker", services.broker),
        ("running", services.running),
        ("port", configuration.port),
        ("reach", services.reach),
        ("workers", services.workers),
        ("server", services.remote),
        ("formats", machine.formats),
        ("processor", machine.processor),
        ("memory", machine.memory),
        ("open files", machine.open_files),
        ("engine", engine.trial),
        ("int8", engine.int8),
    ]


commands = [doctor]
