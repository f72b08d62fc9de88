"""Where a job begins: looking around for a folder, how long it may take, and one photograph answered at once."""

from __future__ import annotations

import os
import time
from typing import Any

from flask import Blueprint, Response, make_response, render_template, request
from pydantic import ValidationError

from mien.browse import Folder, allowed_folders, look_into
from mien.errors import InvalidRequestError, MienError, SourceError
from mien.estimate import estimate
from mien.gallery import first_images
from mien.heartbeat import live_workers, working
from mien.jobs import list_jobs
from mien.models import Model
from mien.settings import Settings
from mien.sources import IMAGE_ENDINGS
from web.auth import caller
from web.boxes import boxes_of
from web.predict import PredictQuery, predict_image
from web.services import services

RECENT_JOBS = 12
FACES_SHOWN = 4
RECOUNT_S = 60.0

begin = Blueprint("begin", __name__)


_counted: dict[tuple[str, ...], tuple[float, tuple[Folder, ...]]] = {}


def _roots(settings: Settings) -> tuple[Folder, ...]:
    """The folders that may be named, with counts of the last minute: counting may take a moment."""
    key = tuple(map(str, settings.roots))
    found = _counted.get(key)
    if found is None or time.monotonic() - found[0] > RECOUNT_S:
        _counted[key] = found = (time.monotonic(), allowed_folders(settings))
    return found[1]


def start_facts() -> dict[str, Any]:
    """What the start page shows besides its form."""
    parts, who = services(), caller()
    jobs = list_jobs(parts.db, who.owner, limit=RECENT_JOBS)
    models, default = _models()
    return {
        "once": os.urandom(16).hex(),
        "roots": _roots(parts.settings),
        "any_folder": who.any_folder,
        "jobs": jobs,
        "first_images": first_images(parts.db, jobs.items, FACES_SHOWN),
        "has_workers": bool(working(live_workers(parts.db))),
        "models": models,
        "default_model": default,
        "endings": ",".join(sorted(ending.decode() for ending in IMAGE_ENDINGS)),
        "most_single": parts.settings.predict_max_bytes,
    }


@begin.get("/browse")
def browse() -> Response:
    """What lies in a folder, as a part of the start page; without ``path`` the folders that may be named."""
    settings, who = services().settings, caller()
    path = request.args.get("path", "")
    look, error = None, None
    if path:
        try:
            look = look_into(settings, path, anywhere=who.any_folder)
        except SourceError as trouble:
            error = trouble
    roots = [] if look else allowed_folders(settings)
    body = render_template("_browse.html", look=look, roots=roots, error=error, any_folder=who.any_folder)
    return make_response(body, error.status if error else 200)


@begin.get("/estimate")
def how_long() -> Response:
    """A sentence: how long so many images would take here, or that nothing was measured yet."""
    parts = services()
    text = request.args.get("images", "")
    if not text.isdecimal() or len(text) > 12:
        raise InvalidRequestError("`images` is a number of images.", field="images")
    model = parts.store.get(request.args.get("model") or parts.settings.model)
    faces = "whole" if request.args.get("faces") == "whole" else "detect"
    found = estimate(parts.db, int(text), model_revision=model.revision, faces_mode=faces)
    return make_response(render_template("_estimate.html", images=int(text), found=found))


@begin.post("/look")
def look() -> Response:
    """One photograph, answered at once and kept nowhere: its boxes and probabilities as a part of the page."""
    try:
        query = PredictQuery.model_validate({name: value for name, value in request.args.items() if value})
    except ValidationError as error:
        raise InvalidRequestError("This photograph cannot be read so.", field="model") from error
    found = predict_image(query=query).get_json()
    boxes = boxes_of(found["faces"], found["width"], found["height"])
    return make_response(render_template("_look.html", found=found, boxes=boxes, labels=found["model"]["labels"]))


def _models() -> tuple[list[Model], str | None]:
    """The installed models, and the reference of the default; none where the store cannot be read."""
    parts = services()
    try:
        return parts.store.list(), parts.store.get(parts.settings.model).revision
    except MienError:
        return [], None
