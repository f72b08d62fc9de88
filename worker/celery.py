"""The Celery app of the worker and of control, for ``celery -A worker worker ...``."""

from __future__ import annotations

from mien.queue import broker_url, create_celery
from mien.settings import load_settings

app = create_celery(broker_url(load_settings()))
app.conf.imports = ("worker.tasks",)
