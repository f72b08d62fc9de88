"""What a job's page shows: how far it is, what holds it back, and what it found, drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mien.database import Database
from mien.heartbeat import live_workers
from mien.jobs import Job
from mien.ledger.tallies import ENDED
from web.charts import Segment, bar_chart, confidence_histogram, segments
from web.summaries import recent_folders, recent_summary

STAGES = ("read", "decode", "detect", "classify", "write")
OUTCOME_WORDS = {
    "ok": "with faces",
    "no_face": "without a face",
    "failed": "failed",
    "cancelled": "cancelled",
    "pending": "waiting",
}


@dataclass(frozen=True)
class FolderBar:
    """A sub-folder: its images, its faces, and the faces' emotions as parts of a bar."""

    name: str
    images: int
    faces: int
    failed: int
    parts: list[Segment]


@dataclass(frozen=True)
class StageTime:
    """A stage's seconds, and its bars in percent of the longest."""

    name: str
    worked: float
    waited: float
    worked_share: float
    waited_share: float


def job_facts(db: Database, job: Job) -> dict[str, Any]:
    """Everything that the changing part of the page needs, by the names of its template."""
    facts = recent_summary(db, job)
    below, more_folders = recent_folders(db, job)
    outcomes = {name: job.counts[name] for name in OUTCOME_WORDS}
    return {
        "job": job,
        "chart": bar_chart(facts["faces"]),
        "histogram": confidence_histogram(facts["confidence_histogram"]),
        "errors": facts["errors"],
        "outcomes": segments(outcomes),
        "outcome_words": OUTCOME_WORDS,
        "folders": [_folder_bar(item) for item in below] if _is_divided(below) else [],
        "more_folders": more_folders,
        "stages": _stage_times(job),
        "done": job.counts["total"] - job.counts["pending"],
        "expanding": job.status in ("draft", "queued", "expanding"),
        "has_workers": job.is_final or bool(live_workers(db)),
    }


def _is_divided(below: list[dict[str, Any]]) -> bool:
    """Whether there is more than one folder to compare."""
    return len(below) > 1 or bool(below and below[0]["folder"])


def _folder_bar(item: dict[str, Any]) -> FolderBar:
    return FolderBar(
        name=item["folder"],
        images=sum(item["outcomes"][name] for name in ENDED),
        faces=sum(item["faces"].values()),
        failed=item["outcomes"]["failed"],
        parts=segments(item["faces"]),
    )


def _stage_times(job: Job) -> list[StageTime]:
    longest = max((job.stage_seconds.get(name, 0) + job.stage_waits.get(name, 0) for name in STAGES), default=0)
    if not longest:
        return []
    return [
        StageTime(
            name,
            worked := job.stage_seconds.get(name, 0),
            waited := job.stage_waits.get(name, 0),
            round(100 * worked / longest, 2),
            round(100 * waited / longest, 2),
        )
        for name in STAGES
    ]
