"""What the views work with, made once per application: settings, ledger, models, doorbell, places for long polls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from flask import current_app

from mien.database import Database
from mien.models import ModelStore
from mien.settings import Settings
from web.doorbell import Doorbell
from web.trail import AuditTrail

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTENSION = "mien"


class Waiting:
    """Places for long polls: at most half the server's threads, so that waiting never keeps others from an answer."""

    def __init__(self, threads: int) -> None:
        self._places = threading.Semaphore(max(1, threads // 2))

    def place(self) -> AbstractContextManager[bool]:
        """``with waiting.place() as got:`` - got is False when every place is taken; nobody waits for a place."""
        return self._place()

    @contextmanager
    def _place(self) -> Iterator[bool]:
        got = self._places.acquire(blocking=False)
        try:
            yield got
        finally:
            if got:
                self._places.release()


@dataclass
class Services:
    """One application's parts. Shared by its threads."""

    settings: Settings
    db: Database
    store: ModelStore
    doorbell: Doorbell
    waiting: Waiting
    uploading: Waiting
    """Places for uploads that arrive: fewer than half, so that with every long poll waiting a thread is still free."""
    predicting: Waiting
    """Places for single images: a quarter of the threads, each for a few seconds."""
    trail: AuditTrail
    is_stopping: Callable[[], bool] = field(default=lambda: False)
    """Whether the server drains: long polls then answer at once (set by ``web.serving``)."""


def services() -> Services:
    """The parts of the application that handles this request."""
    return cast(Services, current_app.extensions[EXTENSION])
