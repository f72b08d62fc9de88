"""Examples of comparisons, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_A, _B = "19a3c5e7b2f0d4e6a8c1b", "19a3c60b4d1f27a9e3b50"
_REVISION = "5f2c8e1b7a904d36c18ef5a2b0d9473e6c1a8f54b2e7d0938a6c5f1e4b7d2a90"
_LABELS = ["neutral", "happy"]
_BOX = {"x": 412.0, "y": 188.5, "width": 231.0, "height": 298.0}

COMPARE_EXAMPLES: dict[str, Any] = {
    "Comparison": {
        "a": {"job": _A, "model": "default", "revision": _REVISION, "labels": _LABELS},
        "b": {"job": _B, "model": "other", "revision": _REVISION[::-1], "labels": _LABELS},
        "images": {"same": 98, "differ": 7, "changed": 1, "not_read": 1, "only_a": 0, "only_b": 2},
        "faces": {"matched": 110, "agree": 103, "only_a": 1, "only_b": 0},
        "agreement": 0.93636,
        "kappa": 0.85714,
        "confusion": [[41, 5], [2, 62]],
        "checked": {
            "faces": 40,
            "both_right": 33,
            "only_a_right": 1,
            "only_b_right": 4,
            "neither_right": 2,
            "p_value": 0.375,
            "left_out": {"unmatched": 0, "raters_differ": 1, "label_of_one_model": 0},
        },
    },
    "DifferencePage": {
        "items": [
            {
                "file": "sub/IMG_0001.jpg",
                "outcome_a": "ok",
                "outcome_b": "ok",
                "faces": [
                    {
                        "a": {"face": 0, "emotion": "neutral", "confidence": 0.51, **_BOX},
                        "b": {"face": 0, "emotion": "happy", "confidence": 0.78, **_BOX},
                    }
                ],
            }
        ],
        "next": None,
        "has_more": False,
    },
}
