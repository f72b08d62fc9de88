"""The words for where a job, chunk, image or review stands: one list of each for the tables, HTTP and the CLI."""

from __future__ import annotations

from typing import Literal, get_args

Status = Literal[
    "draft", "queued", "expanding", "running", "cancelling", "completed", "cancelled", "failed", "deleting"
]
JOB_STATUSES: tuple[str, ...] = get_args(Status)
FINAL_STATUSES = ("completed", "cancelled", "failed")
"""A job in one of these changes only when somebody asks for it."""

Outcome = Literal["pending", "ok", "no_face", "failed", "cancelled"]
EndedOutcome = Literal["ok", "no_face", "failed", "cancelled"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)

ChunkState = Literal["due", "leased", "done"]
CHUNK_STATES: tuple[str, ...] = get_args(ChunkState)

ReviewMode = Literal["check", "mend"]
REVIEW_MODES: tuple[str, ...] = get_args(ReviewMode)

Scope = Literal["metrics", "read", "submit", "admin"]
"""What an API key opens; each holds those before it. ``metrics`` opens /metrics alone."""
SCOPES: tuple[str, ...] = get_args(Scope)
