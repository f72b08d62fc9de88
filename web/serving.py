"""Gunicorn's configuration, from Mien's settings: ``gunicorn "web.app:create_app()" -c python:web.serving``.

One process with threads: the front end computes little, and long polls share one count of places. On TERM it stops
accepting, lets long polls answer at once, and finishes what runs.
"""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger

from mien.logs import configure
from mien.settings import load_settings
from web.services import EXTENSION

_settings = load_settings()

bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
worker_class = "web.patient_worker.PatientWorker"
workers = 1
threads = _settings.web_threads
graceful_timeout = max(1, round(_settings.drain_s))
timeout = 120
keepalive = 15
limit_request_line = 8190
loglevel = _settings.log_level.lower()
proc_name = "mien-web"
access_log_format = "%(m)s %(U)s %(s)s %(L)s"  # should somebody turn it on: no query, which may name files
control_socket_disable = True  # Mien is stopped by signals; no second way in


class Log(Logger):  # type: ignore[misc]
    """Gunicorn's log as one of ours."""

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn before it says anything."""
        super().setup(cfg)
        configure(_settings, "web")


logger_class = Log


def post_worker_init(worker: Any) -> None:
    """Called by gunicorn in the worker, once the application is loaded."""
    configure(_settings, "web")
    worker.wsgi.extensions[EXTENSION].is_stopping = lambda: not worker.alive
