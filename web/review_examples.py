"""Examples of the bodies of reviews and of the system, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_AT = "2026-11-24T12:00:00Z"
_REVIEW_ID = "19a3c60112a7734fe1b02"
_JOB = "19a3c5e7b2f0d4e6a8c1b"
_LABELS = ["neutral", "happy"]
_STRATUM = {"label": "happy", "low": 0.8, "high": 1.0, "faces": 74, "drawn": 19}
_SHARE = {"value": 0.912, "low": 0.843, "high": 0.953, "faces": 114}
_ANSWER = {
    "rater": "Ada",
    "emotion": "happy",
    "first_emotion": "happy",
    "changes": 0,
    "note": None,
    "answered_at": _AT,
}
_BOX = {"x": 412.0, "y": 188.5, "width": 231.0, "height": 298.0}
_FACE = {
    "place": 0,
    "file": "sub/IMG_0001.jpg",
    "face": 0,
    **_BOX,
    "image_width": 1280,
    "image_height": 960,
    "answer": _ANSWER,
    "model": {"emotion": "happy", "confidence": 0.942, "probabilities": {"neutral": 0.058, "happy": 0.942}},
}
_REVIEW = {
    "id": _REVIEW_ID,
    "job": _JOB,
    "mode": "check",
    "labels": _LABELS,
    "seed": 20261124,
    "faces": 100,
    "drawn": 40,
    "left": 40,
    "strata": [_STRATUM],
    "raters": [{"rater": "Ada", "answers": 12, "undecidable": 1, "last_answer_at": _AT}],
    "created_at": _AT,
}
_ROW = {
    "file": "sub/IMG_0001.jpg",
    "face": 0,
    **_BOX,
    "emotion": "happy",
    "confidence": 0.942,
    "review": _REVIEW_ID,
    "mode": "check",
    "rater": "Ada",
    "answer": "happy",
    "undecidable": False,
    "first_answer": "happy",
    "changes": 0,
    "stands_for": 3.894737,
    "note": None,
    "answered_at": _AT,
}

REVIEW_EXAMPLES: dict[str, Any] = {
    "ReviewRequest": {"mode": "check", "size": 200},
    "Rating": {"rater": "Ada", "file": "sub/IMG_0001.jpg", "face": 0, "emotion": "happy"},
    "Review": _REVIEW,
    "ReviewList": {"items": [_REVIEW]},
    "ReviewFace": _FACE,
    "ReviewFacePage": {"items": [_FACE], "next": None, "has_more": False},
    "SystemState": {
        "version": "0.1.0",
        "workers": [],
        "queues": {"control": 0, "classify.cpu": 1, "classify.cuda": 0, "predict.cpu": 0, "predict.cuda": 0},
        "work": {
            "chunks_due": 12,
            "images_due": 768,
            "chunks_leased": 2,
            "images_leased": 128,
            "jobs": {"running": 1, "completed": 7},
        },
        "throughput": [{"minute": _AT, "images": 2410}],
        "disk": {"total": 250_000_000_000, "free": 91_000_000_000, "reserve": 1_073_741_824},
        "trouble": {
            "images": [{"code": "truncated", "images": 3, "jobs": 1, "last_job": _JOB}],
            "jobs": [
                {
                    "job": _JOB,
                    "status": "failed",
                    "source": "/photos/2026",
                    "code": "no_images",
                    "detail": "The folder holds no image.",
                    "failed_at": _AT,
                }
            ],
        },
    },
    "AnswerPage": {"items": [_ROW], "next": None, "has_more": False},
    "ReviewFigures": {
        "review": _REVIEW_ID,
        "job": _JOB,
        "faces": 100,
        "drawn": 40,
        "left": 40,
        "answered": 40,
        "told": 38,
        "undecided": 2,
        "covered": 1.0,
        "accuracy": _SHARE,
        "per_label": [{"label": "happy", "precision": _SHARE, "recall": _SHARE}],
        "confusion": {"labels": _LABELS, "seen": [[12, 3], [1, 22]], "faces": [[30.1, 6.2], [2.0, 61.7]]},
        "raters": [{"rater": "Ada", "answers": 40, "undecidable": 2, "changed": 0, "accuracy": _SHARE, "kappa": 0.81}],
        "pairs": [{"raters": ["Ada", "Ben"], "faces": 36, "agreement": _SHARE, "kappa": 0.77}],
        "strata": [{**_STRATUM, "told": 18, "agreed": 17}],
    },
}
