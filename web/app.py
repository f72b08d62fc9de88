"""The front end as a WSGI application: ``gunicorn "web.app:create_app()" -c python:web.serving``."""

from __future__ import annotations

import hashlib
import logging
from functools import cache
from pathlib import Path

from flask_openapi.openapi import OpenAPI
from pydantic import BaseModel

from mien import wire, wire_compare, wire_results, wire_reviews, wire_system, wire_webhooks
from mien.database import Database
from mien.errors import SettingsError, UnavailableError
from mien.models import ModelStore
from mien.resources import MissingResourceError, resource
from mien.schema_version import is_current
from mien.settings import Settings, load_settings
from web import (
    audit,
    auth,
    gallery,
    limits,
    metrics,
    openapi,
    pages,
    pictures,
    problems,
    request_id,
    review_pages,
    security,
    system_pages,
)
from web.api import api
from web.comparisons import comparisons
from web.deletions import deletions
from web.doorbell import Doorbell
from web.exports import exports
from web.health import health
from web.json_body import JsonRequest, StrictJson
from web.models import models
from web.predict import predictions
from web.queries import queries
from web.reviews import reviews
from web.services import EXTENSION, Services, Waiting
from web.system import system
from web.trail import AuditTrail
from web.uploads import uploads
from web.webhooks import webhooks

log = logging.getLogger(__name__)

ANSWERS: list[type[BaseModel]] = [
    wire.JobStatus,
    wire.JobPage,
    wire.UploadPage,
    wire.Received,
    wire_results.ResultPage,
    wire_results.ResultsAcrossPage,
    wire_results.Prediction,
    wire.Receipt,
    wire.ReceiptPage,
    wire.AuditPage,
    wire_results.Summary,
    wire_results.OverallSummary,
    wire_results.FolderPage,
    wire_results.Citation,
    wire_system.ModelInfo,
    wire_system.ModelCard,
    wire_system.ModelList,
    wire_system.WorkerList,
    wire_system.SystemState,
    wire_reviews.Review,
    wire_reviews.ReviewList,
    wire_reviews.ReviewFace,
    wire_reviews.ReviewFacePage,
    wire_reviews.ReviewFigures,
    wire_reviews.AnswerPage,
    wire_compare.Comparison,
    wire_compare.DifferencePage,
    wire_system.Worker,
    wire_webhooks.Webhook,
    wire_webhooks.WebhookWithSecret,
    wire_webhooks.WebhookList,
    wire_webhooks.Delivery,
    wire_webhooks.DeliveryPage,
    wire.Health,
    wire.Readiness,
    wire.Problem,
]
"""The models that the operations' answers refer to in the OpenAPI document."""
ONE_YEAR_S = 31_536_000
KEY_SCHEME = {"type": "http", "scheme": "bearer", "description": "An API key (`mien keys create`) or the local token."}


PARTS = (
    api, uploads, exports, queries, models, predictions, deletions, reviews, comparisons, system, webhooks,
    audit.audits, health,
)  # fmt: skip
"""The API, in the order of its reference."""


def create_app(settings: Settings | None = None) -> OpenAPI:
    """Make the application; ``settings`` are read from the environment when none are given.

    Raises:
        SettingsError: a setting cannot be used, the ledger is not migrated, or others could reach a Mien without keys.
    """
    settings = settings or load_settings()
    db = Database(settings.database, longest_pause_s=settings.lease_s)
    _check_ledger(settings, db)
    app = OpenAPI(
        "web",
        info=openapi.info(),
        doc_ui=False,
        security_schemes={"key": KEY_SCHEME},
        validation_error_status=400,
        validation_error_model=wire.Problem,
        validation_error_callback=problems.on_invalid_request,
        static_url_path=f"/static/{static_version()}",
    )
    app.request_class = JsonRequest
    app.json = StrictJson(app)
    app.url_map.strict_slashes = False
    app.config.update(MAX_CONTENT_LENGTH=settings.max_request_bytes, SEND_FILE_MAX_AGE_DEFAULT=ONE_YEAR_S)
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.extensions[EXTENSION] = _services(settings, db)
    metrics.install(app, app.extensions[EXTENSION])
    problems.install(app)
    app.after_request(request_id.add_request_id)
    security.install(app, settings)
    auth.install(app, settings)
    limits.install(app, settings)
    audit.install(app)
    for part in PARTS:
        app.register_api(part)
    openapi.install(app, ANSWERS)
    pages.install(app)
    pictures.install(app)
    review_pages.install(app)
    system_pages.install(app)
    gallery.install(app)
    return app


@cache
def _services(settings: Settings, db: Database) -> Services:
    return Services(
        settings=settings,
        db=db,
        store=ModelStore(settings.models, _shipped_model()),
        doorbell=Doorbell(settings),
        waiting=Waiting(settings.web_threads),
        uploading=Waiting(settings.web_threads - 2),
        predicting=Waiting(settings.web_threads // 2),
        trail=AuditTrail(db),
    )


def static_version() -> str:
    """Stands in the address of every style sheet and script: browsers keep them, and get new ones with a new Mien."""
    content = hashlib.sha256()
    for file in sorted((Path(__file__).parent / "static").rglob("*")):
        if file.is_file():
            content.update(file.name.encode() + b"\0" + file.read_bytes())
    return content.hexdigest()[:12]


def _shipped_model() -> Path | None:
    try:
        return resource("models/default")
    except MissingResourceError as error:
        # the front end still shows jobs and results; a new job is told that there is no model
        log.error("%s", error.detail)
        return None


def _check_ledger(settings: Settings, db: Database) -> None:
    """Refuse a ledger of another version, and a Mien that others can reach but that knows no key."""
    try:
        if not is_current(db):
            raise SettingsError(
                "The ledger's schema is not of this version: run `mien migrate` (`mien up` does it by itself).",
                code="not_migrated",
            )
        auth.require_secrets_beyond_loopback(settings, db)
    except UnavailableError as error:
        # requests are answered with 503 until it is back; and without a ledger no key opens
        log.warning("%s", error.detail)
