"""Examples of the bodies about webhooks and workers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_AT = "2026-11-24T12:00:00Z"
_HOOK = {
    "id": "19a3c5e7c01f5b7d9e0a2",
    "url": "https://lab.example.org/mien",
    "events": ["job.completed", "job.failed"],
    "enabled": True,
    "disabled_at": None,
    "disabled_reason": None,
    "old_secret_until": None,
    "created_at": _AT,
}
_SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="  # an example, no secret of anyone
_DELIVERY = {
    "id": "msg_4f1c0a92be7d35186c0e9a2f",
    "job": "19a3c5e7b2f0d4e6a8c1b",
    "event": "job.completed",
    "state": "delivered",
    "attempts": 1,
    "next_attempt_at": None,
    "last_status": 204,
    "last_error": None,
    "created_at": _AT,
    "delivered_at": _AT,
}
_REVISION = "5f2c8e1b7a904d36c18ef5a2b0d9473e6c1a8f54b2e7d0938a6c5f1e4b7d2a90"
_WORKER = {
    "name": "worker@host.17",
    "host": "host",
    "device": "cpu",
    "device_name": "AMD EPYC 9R14",
    "precisions": ["fp32", "int8"],
    "models": [_REVISION],
    "loaded": [_REVISION],
    "engines": 2,
    "state": "active",
    "wanted": "active",
    "images_per_s": 41.2,
    "version": "0.1.0",
    "started_at": _AT,
    "seen_at": _AT,
}

OPERATE_EXAMPLES: dict[str, Any] = {
    "WebhookRequest": {"url": _HOOK["url"], "events": _HOOK["events"]},
    "WebhookChange": {"enabled": True},
    "NewSecret": {},
    "Webhook": _HOOK,
    "WebhookWithSecret": {**_HOOK, "secret": _SECRET},
    "WebhookList": {"items": [_HOOK]},
    "Delivery": _DELIVERY,
    "DeliveryPage": {"items": [_DELIVERY], "next": "WyJkZWxpdmVyaWVzIiw3XQ", "has_more": False},
    "WorkerState": {"state": "drained"},
    "Worker": _WORKER,
    "WorkerList": {"items": [_WORKER]},
}
