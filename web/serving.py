"""Gunicorn's configuration, from Mien's settings: ``gunicorn "web.app:create_app()" -c python:web.serving``.

One process with threads: the front end computes little, and long polls share one count of places. On TERM it stops
accepting, lets long polls answer at once, and finishes what runs.
"""

from __future__ import annotations

import logging
from typing import Any

from mien.settings import load_settings
from web.services import EXTENSION

_settings = load_settings()

bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
worker_class = "gthread"
workers = 1
threads = _settings.web_threads
graceful_timeout = max(1, round(_settings.drain_s))
timeout = 120
keepalive = 15
limit_request_line = 8190
loglevel = _settings.log_level.lower()
proc_name = "mien-web"
control_socket_disable = True  # Mien is stopped by signals; no second way in


def post_worker_init(worker: Any) -> None:
    """Called by gunicorn in the worker, once the application is loaded."""
    logging.basicConfig(level=_settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    worker.wsgi.extensions[EXTENSION].is_stopping = lambda: not worker.alive
