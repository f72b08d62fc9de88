"""How much a key may do: requests in a minute, unfinished jobs, images and bytes in a day; told in RateLimit headers.

Whoever needs no key on this machine has no limits. Requests are counted in the broker's Redis, so that all front ends
count together, or here where the broker is Mien's own (there is one front end then) or does not answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass

from flask import Flask, Response, g, request
from limits import RateLimitItemPerMinute
from limits.errors import ConfigurationError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from mien.database import Database
from mien.errors import LimitError
from mien.keys import Limits
from mien.ledger.usage import Used, used_today
from mien.settings import Settings
from web.auth import Caller
from web.services import services

log = logging.getLogger(__name__)

MAKES_JOBS = frozenset({"api.submit_job", "api.rerun", "pages.submit"})
TAKES_BYTES = frozenset({"api.submit_job", "uploads.upload", "uploads.upload_one"})
MINUTE_S = 60
TRY_AGAIN_S = 30
"""When to ask again whether one of the jobs has ended."""
WITHOUT_REDIS_S = 10.0
ANSWERS_WITHIN_S = 0.3
"""A broker that hangs must not keep a job from being accepted within a second."""


@dataclass(frozen=True)
class Window:
    """What is left of the requests, and for how many seconds."""

    quota: int
    left: int
    reset_s: int
    allowed: bool


class Requests:
    """Counts the requests of each key over the last minute."""

    def __init__(self, settings: Settings) -> None:
        self._here = MovingWindowRateLimiter(MemoryStorage())
        self._shared = _shared(settings.broker_url)
        self._back_at = 0.0

    def take(self, key_id: int, quota: int) -> Window:
        """Count one request of the key."""
        item = RateLimitItemPerMinute(quota)
        if self._shared is not None and time.monotonic() >= self._back_at:
            try:
                return _taken(self._shared, item, key_id, quota)
            except Exception as error:  # whatever the storage raises: a limit is no reason to refuse everyone
                log.warning("Requests are counted here for a while: the broker does not answer (%s).", error)
                self._back_at = time.monotonic() + WITHOUT_REDIS_S
        return _taken(self._here, item, key_id, quota)


class Making:
    """Requests that are making a job just now, by owner: they count as jobs until the ledger shows theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: Counter[str] = Counter()

    def begin(self, db: Database, owner: str, most: int) -> None:
        """Count one more.

        Raises:
            LimitError: ``too_many_jobs``.
        """
        with self._lock:
            # asked under the lock: each job is either still being made here, or shown by the ledger
            open_jobs = used_today(db, owner).open_jobs if most else 0
            if most and open_jobs + self._now[owner] >= most:
                raise LimitError(
                    f"{open_jobs:,} of your jobs have not ended; at most {most:,} may be unfinished at once.",
                    code="too_many_jobs",
                    limit="jobs",
                    retry_after_s=TRY_AGAIN_S,
                )
            self._now[owner] += 1

    def end(self, owner: str) -> None:
        """It is made, or not."""
        with self._lock:
            self._now[owner] -= 1
            if not self._now[owner]:
                del self._now[owner]


def install(app: Flask, settings: Settings) -> None:
    """Hold every caller of ``app`` to their limits."""
    requests, making = Requests(settings), Making()

    @app.before_request
    def _check() -> None:
        caller: Caller | None = g.get("caller")
        if caller is None or caller.key_id is None:
            return
        limits = in_force(settings, caller.limits)
        if limits.requests_per_minute and not is_part_of_a_page():
            g.window = window = requests.take(caller.key_id, limits.requests_per_minute)
            if not window.allowed:
                raise LimitError(
                    f"This key made {window.quota:,} requests in the last minute, as many as it may.",
                    code="rate_limited",
                    limit="requests",
                    retry_after_s=window.reset_s,
                )
        if request.method not in {"POST", "PUT"}:
            return
        if request.endpoint in MAKES_JOBS | TAKES_BYTES and _any(limits):
            used = used_today(services().db, caller.owner)
            if request.endpoint in TAKES_BYTES:
                check_bytes(used, limits, request.content_length or 0)
            if request.endpoint in MAKES_JOBS:
                check_images(used, limits)
                making.begin(services().db, caller.owner, limits.concurrent_jobs or 0)
                g.making = caller.owner

    @app.teardown_request
    def _end(_error: BaseException | None) -> None:
        if owner := g.pop("making", None):
            making.end(owner)

    app.after_request(_tell)


def is_part_of_a_page() -> bool:
    """Whether the request is what a page asks for by itself: its pictures, and whether anything is new.

    A page of the gallery shows 48 pictures; counted, they would shut out whoever looks at it. A few processes make
    them, whoever asks.
    """
    return request.blueprint == "pictures" or request.endpoint == "pages.live"


def in_force(settings: Settings, own: Limits) -> Limits:
    """The limits of a key: its own, where it has one, else those of the settings."""
    return Limits(
        **{
            name: getattr(settings, name) if (value := getattr(own, name)) is None else value
            for name in Limits.__dataclass_fields__
        }
    )


def check_images(used: Used, limits: Limits) -> None:
    """Refuse a job when today's images are used up.

    Raises:
        LimitError: ``images_quota``.
    """
    if limits.images_per_day and used.images >= limits.images_per_day:
        raise LimitError(
            f"Your jobs of today hold {used.images:,} images; {limits.images_per_day:,} a day are allowed.",
            code="images_quota",
            limit="images",
            retry_after_s=used.day_ends_in_s,
        )


def check_bytes(used: Used, limits: Limits, coming: int) -> None:
    """Refuse a body that would go beyond today's bytes, before any of it is read.

    Raises:
        LimitError: ``bytes_quota``.
    """
    most = limits.bytes_per_day
    if most and (used.bytes >= most or used.bytes + coming > most):
        raise LimitError(
            f"You uploaded {used.bytes:,} bytes today and {coming:,} more come; {most:,} a day are allowed.",
            code="bytes_quota",
            limit="bytes",
            retry_after_s=used.day_ends_in_s,
        )


def _any(limits: Limits) -> bool:
    return bool(limits.concurrent_jobs or limits.images_per_day or limits.bytes_per_day)


def _tell(answer: Response) -> Response:
    """The fields of the IETF draft "RateLimit header fields for HTTP" (version 10)."""
    window: Window | None = g.get("window")
    if window is not None:
        answer.headers["RateLimit-Policy"] = f'"requests";q={window.quota};w={MINUTE_S}'
        answer.headers["RateLimit"] = f'"requests";r={window.left};t={window.reset_s}'
    return answer


def _shared(broker_url: str) -> MovingWindowRateLimiter | None:
    if not broker_url.startswith(("redis://", "rediss://")):
        return None
    try:
        storage = storage_from_string(
            broker_url,
            key_prefix="mien-limits",
            socket_timeout=ANSWERS_WITHIN_S,
            socket_connect_timeout=ANSWERS_WITHIN_S,
        )
    except ConfigurationError as error:
        log.warning("Requests are counted by this front end alone: %s", error)
        return None
    return MovingWindowRateLimiter(storage)


def _taken(limiter: MovingWindowRateLimiter, item: RateLimitItemPerMinute, key_id: int, quota: int) -> Window:
    allowed = limiter.hit(item, str(key_id))
    stats = limiter.get_window_stats(item, str(key_id))
    return Window(quota, stats.remaining, max(1, round(stats.reset_time - time.time())), allowed)
