"""How a process writes its log: lines for people, or one JSON object a line (``MIEN_LOG_FORMAT``), on stderr.

A line carries the job and the chunk it is about. Keys, secrets, passwords in addresses and names of image files are
taken out of whatever is written, also of what libraries and engines say.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mien.settings import Settings

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
QUIET = ("celery.app.trace", "celery.worker.strategy", "kombu", "urllib3", "botocore", "alembic")
"""Loggers that say of each message or request that it came; they begin at WARNING unless MIEN_LOG_LEVEL is DEBUG."""
ACCESS = "mien.access"
FIELDS = ("request_id", "method", "route", "status", "seconds")
"""What an access line tells besides."""

_about: ContextVar[dict[str, str | int] | None] = ContextVar("mien_log_about", default=None)
_process = {"name": "mien"}

_ENDINGS = "jpe?g|jpe|jfif|png|webp|avif|bmp|dib|gif|tiff?|hei[cf]|mpo"
_SECRETS = (
    (re.compile(r"\bmien_[A-Za-z0-9_-]{20,}"), "(key hidden)"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+"), "(secret hidden)"),
    (re.compile(r"(?i)\b(Bearer|Basic)\s+\S+"), r"\1 (key hidden)"),
    (re.compile(r"(://[^\s/:@]*):[^\s/@]+@"), r"\1:(hidden)@"),
    (re.compile(rf"""(?ix) (['"]) (?: (?!\1)[^\n] ){{1,4096}}? \.(?:{_ENDINGS}) \1 """), "(a file)"),
)


def configure(settings: Settings, process: str) -> None:
    """Write this process's log from now on: web, worker or control."""
    _process["name"] = process
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter(TEXT_FORMAT))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if settings.log_level == "DEBUG" else logging.WARNING)
    logging.getLogger(ACCESS).setLevel(settings.log_level if settings.log_format == "json" else logging.WARNING)
    for name in ("gunicorn.error", "gunicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(settings.log_level)
    logging.captureWarnings(True)


def name_process(process: str) -> None:
    """Say what this process is, where that is known only later."""
    _process["name"] = process


@contextmanager
def about(**facts: str | int) -> Iterator[None]:
    """Lines written by this thread inside the block carry these facts: ``job``, ``chunk``."""
    token = _about.set({**(_about.get() or {}), **facts})
    try:
        yield
    finally:
        _about.reset(token)


def hide(text: str) -> str:
    """The text without keys, secrets, passwords in addresses and quoted names of image files."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class TextFormatter(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        facts = _about.get()
        suffix = f" [{', '.join(f'{name} {value}' for name, value in facts.items())}]" if facts else ""
        return hide(super().format(record)) + suffix


class JsonFormatter(logging.Formatter):
    """One JSON object a line (RFC 8259), times in UTC (RFC 3339)."""

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "process": _process["name"],
            "pid": record.process,
            "message": hide(record.getMessage()),
            **(_about.get() or {}),
        }
        for name in (*FIELDS, "job", "chunk"):
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info:
            line["exception"] = hide(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = hide(self.formatStack(record.stack_info))
        # ASCII: whatever a message holds, the line is whole and valid
        return json.dumps(line, default=str)
