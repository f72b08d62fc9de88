"""One image in, its faces out, at once: nothing of it is kept."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint
from pydantic import Field
from werkzeug.exceptions import RequestEntityTooLarge

from mien import wire_results
from mien.errors import InvalidRequestError, TooLargeError, UnavailableError
from mien.heartbeat import live_workers, working
from mien.ledger.commit import FaceOutcome, face_values
from mien.models import Model
from mien.predict import Answer, ImageRequest, choose_device, connect, predict
from mien.queue import broker_url
from mien.submission import JobOptions, options_in_force
from web.api import as_json
from web.openapi import SECURITY, json_answer, problems
from web.problems import MediaTypeError
from web.schemas import Query
from web.services import services

BINARY = {"schema": {"type": "string", "format": "binary", "description": "The image file as it is."}}

predictions = APIBlueprint(
    "predictions",
    __name__,
    url_prefix="/api/v1",
    abp_tags=[{"name": "predict", "description": "One image, at once, without a job."}],
    abp_security=SECURITY,
)

_broker = lru_cache(maxsize=4)(connect)  # by address: an embedded broker may move


class PredictQuery(Query):
    """How the image is read; what is left out comes from the server's settings."""

    model: str | None = Field(None, max_length=300, description="An installed model: name, or name@revision.")
    faces: Literal["detect", "whole"] = Field("detect", description="Find faces, or classify the image as it is.")
    precision: Literal["fp32", "bf16", "fp16", "int8"] | None = Field(None, description="Precision of the model.")
    detect_size: int | None = Field(
        None, ge=64, le=4096, multiple_of=32, description="Longer side at which faces are looked for, in pixels."
    )
    min_face_score: float | None = Field(None, gt=0, lt=1, description="Lowest detector score that counts as a face.")
    min_face: int | None = Field(None, ge=0, le=100_000, description="Smallest face that counts, in pixels.")


@predictions.post(
    "/predict",
    operation_id="predict",
    request_body={"content": {"image/*": BINARY, "application/octet-stream": BINARY}, "required": True},
    responses={
        200: json_answer(wire_results.Prediction, "The image's faces, from the largest down."),
        **problems(403, 413, 415, 422, 504),
    },
)
def predict_image(query: PredictQuery) -> Response:
    """Classify one image at once, ahead of every job.

    The body is the image file itself. An image that cannot be read is a 422 with the code that a failed image of a job
    would have.
    """
    parts = services()
    model = parts.store.get(query.model or parts.settings.model)
    options = JobOptions(**query.model_dump(exclude={"model"}))
    asked = ImageRequest(model_revision=model.revision, **options_in_force(parts.settings, model, options).model_dump())
    device = choose_device(working(live_workers(parts.db)), asked)
    data = _image(parts.settings.predict_max_bytes)
    with parts.predicting.place() as got:
        if not got:
            raise UnavailableError("Too many single images are on their way; try again in a moment.", code="busy")
        timeout_s = parts.settings.predict_timeout_s
        answer = predict(
            parts.doorbell.celery(),
            _broker(broker_url(parts.settings), timeout_s),
            data,
            device=device,
            asked=asked,
            timeout_s=timeout_s,
        )
    return as_json(_prediction(answer, model, asked))


def _image(limit: int) -> bytes:
    """The body, held in memory and nowhere else.

    Raises:
        MediaTypeError, TooLargeError, InvalidRequestError: it is no image, too large, or empty.
    """
    kind = request.mimetype
    if not kind.startswith("image/") and kind != "application/octet-stream":
        raise MediaTypeError(
            "Send the image file itself as the body, with `Content-Type: image/jpeg` (or whatever it is) or "
            "application/octet-stream; forms are not read here."
        )
    request.max_content_length = limit
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        came = f"{request.content_length:,} bytes" if request.content_length else "more"
        raise TooLargeError(
            f"A single image may have {limit:,} bytes (MIEN_PREDICT_MAX_BYTES); this one has {came}."
        ) from None
    if not data:
        raise InvalidRequestError("The body is empty; it has to be an image.", code="empty_file", field="image")
    return data


def _prediction(answer: Answer, model: Model, asked: ImageRequest) -> wire_results.Prediction:
    faces = [
        {"face": number, **face_values(FaceOutcome(**face.model_dump()), model.labels)}
        for number, face in enumerate(answer.faces)
    ]
    return wire_results.Prediction.model_validate(
        {
            **answer.model_dump(include={"outcome", "width", "height", "bytes", "format", "sha256"}),
            "model": {"name": model.name, "revision": model.revision, "labels": list(model.labels)},
            "options": asked.model_dump(exclude={"model_revision"}),
            "faces": faces,
            "stage_seconds": {stage: round(seconds, 4) for stage, seconds in answer.stage_seconds.items()},
        }
    )
