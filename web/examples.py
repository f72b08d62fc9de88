"""One example of every body that the API takes or gives, for the OpenAPI document. A test reads each with its model."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from web.compare_examples import COMPARE_EXAMPLES
from web.operate_examples import OPERATE_EXAMPLES
from web.review_examples import REVIEW_EXAMPLES

_JOB = "19a3c5e7b2f0d4e6a8c1b"
_SHA = "b1946ac92492d2347c6235b4d2611184a1e3b8f60d1c5e9a7f204cd8e6b3a912"
_REVISION = "5f2c8e1b7a904d36c18ef5a2b0d9473e6c1a8f54b2e7d0938a6c5f1e4b7d2a90"
_AT = "2026-11-24T12:00:00Z"
_LABELS = ["neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt"]
_SHARES = dict(zip(_LABELS, (0.031, 0.942, 0.014, 0.004, 0.003, 0.002, 0.002, 0.002), strict=True))
_HISTOGRAM = [0] * 8 + [1, 0, 2, 3, 3, 5, 8, 9, 12, 15, 19, 23]
_OUTCOMES = {"pending": 0, "ok": 96, "no_face": 3, "failed": 1, "cancelled": 0}
_PER_LABEL = dict(zip(_LABELS, (31, 42, 6, 9, 5, 2, 3, 2), strict=True))
_STAGES = {"read": 0.21, "decode": 1.94, "detect": 3.12, "classify": 4.87, "write": 0.05}
_WAITS = {"read": 0.03, "decode": 0.04, "detect": 0.06, "classify": 0.07, "write": 0.01}
_MODEL = {"name": "default", "revision": _REVISION, "labels": _LABELS}
_OPTIONS = {"faces": "detect", "precision": "fp32", "detect_size": 640, "min_face_score": 0.7, "min_face": 0}

_STATUS: dict[str, Any] = {
    "id": _JOB,
    "status": "completed",
    "complete": True,
    "source": {"type": "folder", "path": "/photos/2026", "recursive": True, "include": [], "exclude": []},
    "model": _MODEL,
    "options": _OPTIONS,
    "metadata": {"study": "7"},
    "keep_images": None,
    "keep_results": None,
    "counts": {"total": 100, "faces": 100, "skipped": 2, "cached": 0} | _OUTCOMES,
    "created_at": _AT,
    "draft_at": None,
    "queued_at": _AT,
    "expanding_at": "2026-11-24T12:00:00.2Z",
    "running_at": "2026-11-24T12:00:00.4Z",
    "cancelling_at": None,
    "completed_at": "2026-11-24T12:00:05Z",
    "cancelled_at": None,
    "failed_at": None,
    "deleting_at": None,
    "images_per_s": 20.8,
    "eta_s": None,
    "stage_seconds": _STAGES,
    "stage_waits": _WAITS,
    "bottleneck": {
        "code": "classify",
        "detail": "Classifying the faces takes most: 47% of the engines' time, 49.4 ms an image. --precision int8 "
        "(`mien doctor` says what it gains here), a GPU or a smaller model is faster; more cores or workers share the "
        "work.",
    },
    "error": None,
    "notice": None,
}
_FACE = {
    "face": 0,
    "x": 412.0,
    "y": 188.5,
    "width": 231.0,
    "height": 298.0,
    "score": 0.934,
    "emotion": "happy",
    "confidence": 0.942,
    "probabilities": _SHARES,
}
_IMAGE = {
    "file": "sub/IMG_0001.jpg",
    "outcome": "ok",
    "width": 1280,
    "height": 960,
    "bytes": 204811,
    "format": "JPEG",
    "sha256": _SHA,
    "cached": False,
    "error": None,
    "faces": [_FACE],
    "sequence": [1, 0],
}
_CURSOR = "WyIxOWEzYzVlN2IyZjBkNGU2YThjMWIiLDEsMF0"
_INFO = {
    **_MODEL,
    "precisions": {"cpu": ["fp32", "int8"], "cuda": ["fp32", "bf16", "fp16"]},
    "width": 70,
    "height": 70,
    "default": True,
    "int8_cost": "costs 0.1 points of accuracy (85.1% in fp32, 85.0% in int8, 1,620 images)",
    "notes": "",
}
_RECEIPT = {
    "id": "19a3c5f012ab4d5e6f708",
    "kind": "sha256",
    "reason": "request",
    "job": None,
    "files": None,
    "sha256": _SHA,
    "deleted": {"jobs": 0, "images": 2, "faces": 2, "uploads": 1, "corrections": 0},
    "requested_at": _AT,
    "finished_at": None,
}
_CHECKS = {name: {"ok": True, "detail": "answers"} for name in ("database", "broker", "worker")}


def _page(*items: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(items), "next": _CURSOR, "has_more": False}


EXAMPLES: dict[str, Any] = {
    **REVIEW_EXAMPLES,
    **OPERATE_EXAMPLES,
    **COMPARE_EXAMPLES,
    "JobRequest": {
        "source": {"type": "folder", "path": "/photos/2026"},
        "options": {"faces": "detect"},
        "metadata": {"study": "7"},
    },
    "RerunRequest": {"model": "default", "metadata": {"study": "7", "again": True}},
    "ModelChoice": {"model": "default"},
    "Content": {"sha256": _SHA},
    "JobStatus": _STATUS,
    "JobPage": _page(_STATUS),
    "ResultPage": _page(_IMAGE),
    "ResultsAcrossPage": _page({"job": _JOB, **_IMAGE}),
    "Summary": {
        "faces": _PER_LABEL,
        "confidence_histogram": _HISTOGRAM,
        "outcomes": _OUTCOMES,
        "errors": {"truncated": 1},
        "stage_seconds": _STAGES,
        "stage_waits": _WAITS,
    },
    "OverallSummary": {
        "jobs": 1,
        "faces": _PER_LABEL,
        "confidence_histogram": _HISTOGRAM,
        "outcomes": _OUTCOMES,
        "errors": {"truncated": 1},
    },
    "FolderPage": {
        "items": [
            {
                "folder": "sub",
                "outcomes": {name: number for name, number in _OUTCOMES.items() if name != "pending"},
                "faces": _PER_LABEL,
            }
        ],
        "next": None,
        "has_more": False,
    },
    "Citation": {
        "methods": "Facial expressions were classified with Mien 0.1.0, model default (revision 5f2c8e1b7a90, fp32).",
        "bibtex": "@software{mien,\n  title = {Mien},\n  version = {0.1.0}\n}",
    },
    "UploadPage": _page({"file": "sub/IMG_0001.jpg", "bytes": 204811, "sha256": _SHA, "received_at": _AT}),
    "Received": {
        "files": 3,
        "bytes": 612044,
        "replaced": 0,
        "skipped": {"not_an_image": 1},
        "skipped_files": [{"file": "notes.txt", "reason": "not_an_image"}],
        "total_files": 3,
        "total_bytes": 612044,
    },
    "Prediction": {
        "outcome": "ok",
        "width": 1280,
        "height": 960,
        "bytes": 204811,
        "format": "JPEG",
        "sha256": _SHA,
        "model": _MODEL,
        "options": _OPTIONS,
        "faces": [_FACE],
        "stage_seconds": {"read": 0.0, "decode": 0.011, "detect": 0.024, "classify": 0.018},
    },
    "Receipt": _RECEIPT,
    "ReceiptPage": _page(_RECEIPT),
    "AuditPage": _page(
        {
            "at": "2026-03-01T12:00:00Z",
            "owner": "lab",
            "key_id": 3,
            "action": "exported",
            "detail": "results_csv",
            "job": "19a3c5f012ab4d5e6f708",
            "receipt": None,
        }
    ),
    "ModelInfo": _INFO,
    "ModelCard": {**_INFO, "card": "# default\n\n...", "crop_margin": 0.1, "grey": True, "workers": ["worker@host.17"]},
    "ModelList": {"items": [_INFO]},
    "Health": {"status": "alive", "version": "0.1.0"},
    "Readiness": {"status": "ready", "checks": _CHECKS},
}
TEXTS = {
    "text/csv": "file,face,x,y,width,height,face_score,emotion,confidence,p_happy,p_sad,status,error\n"
    "sub/IMG_0001.jpg,0,412,188.5,231,298,0.934,happy,0.942,0.942,0.058,ok,\n",
    "application/jsonl": '{"file":"sub/IMG_0002.jpg","status":"no_face","width":640,"height":480,"sha256":null,'
    '"faces":[],"error":null}\n',
}
PROBLEMS = {
    400: ("invalid_request", "`limit`: Input should be less than or equal to 1000.", "limit"),
    401: ("key_needed", "An API key is needed: send `Authorization: Bearer KEY`.", None),
    403: ("scope_needed", "This key may only read.", None),
    404: ("unknown_job", f"There is no job {_JOB!r}.", None),
    409: ("job_not_retryable", "There is nothing to retry in this job: none of its images failed.", None),
    413: ("too_large", "The body is larger than this Mien takes.", None),
    415: ("unsupported_media_type", "The body has to be JSON: send it with `Content-Type: application/json`.", None),
    422: ("source_missing", "There is no folder /photos/2026.", "source.path"),
    429: ("rate_limited", "This key made 600 requests in the last minute, as many as it may.", None),
    503: ("unavailable", "The database does not answer. Try again in a moment.", None),
    504: ("deadline", "No answer came in time.", None),
    507: ("no_space", "The disk for uploads is full.", None),
}


def problem(status: int) -> dict[str, Any]:
    """An example of a problem with this status."""
    code, detail, field = PROBLEMS[status]
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "7c1e5a90b2d4f836",
        **({"field": field} if field else {}),
    }
