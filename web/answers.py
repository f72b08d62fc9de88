"""From the ledger's objects to the answers of the API (``mien.wire``)."""

from __future__ import annotations

import dataclasses

from mien import wire, wire_system
from mien.heartbeat import WorkerInfo
from mien.int8 import cost_sentence
from mien.jobs import Job
from mien.models import Model


def job_status(job: Job) -> wire.JobStatus:
    """A job as the API gives it."""
    return wire.JobStatus.model_validate(
        {
            "id": job.public_id,
            "status": job.status,
            "complete": job.complete,
            "source": {
                "type": job.source_type,
                "path": job.source_text if job.source_type == "folder" else None,
                "files": job.upload_files if job.source_type == "upload" else None,
                "bytes": job.upload_bytes if job.source_type == "upload" else None,
                "recursive": job.recursive,
                "include": job.include,
                "exclude": job.exclude,
            },
            "model": {"name": job.model, "revision": job.model_revision, "labels": list(job.labels)},
            "options": {
                "faces": job.faces_mode,
                "precision": job.precision,
                "detect_size": job.detect_size,
                "min_face_score": job.min_face_score,
                "min_face": job.min_face,
            },
            "metadata": job.metadata,
            "keep_images": job.keep_images_s,
            "keep_results": job.keep_results_s,
            "counts": job.counts,
            **job.times,
            "images_per_s": job.images_per_s,
            "eta_s": job.eta_s,
            "stage_seconds": job.stage_seconds,
            "stage_waits": job.stage_waits,
            "bottleneck": job.bottleneck and wire.Reason(code=job.bottleneck.code, detail=job.bottleneck.detail),
            "error": _reason(job.error_code, job.error),
            "notice": _reason(job.notice_code, job.notice),
        }
    )


def model_info(model: Model, default: Model) -> wire_system.ModelInfo:
    """A model as the API gives it."""
    return wire_system.ModelInfo(
        name=model.name,
        revision=model.revision,
        labels=list(model.labels),
        precisions={device: list(names) for device, names in model.precisions.items()},
        width=model.input.width,
        height=model.input.height,
        default=(model.name, model.revision) == (default.name, default.revision),
        int8_cost=cost_sentence(model.folder) if "int8" in model.precisions["cpu"] else None,
        notes=model.notes,
    )


def model_card(model: Model, default: Model, workers: list[str]) -> wire_system.ModelCard:
    """A model with its card as the API gives it."""
    paper = model.folder / "README.md"
    card = paper.read_text(encoding="utf-8", errors="replace") if paper.is_file() else None
    return wire_system.ModelCard(
        **model_info(model, default).model_dump(),
        card=card,
        crop_margin=model.crop.margin,
        grey=model.crop.grey,
        workers=workers,
    )


def worker(info: WorkerInfo) -> wire_system.Worker:
    """A worker as the API gives it."""
    return wire_system.Worker.model_validate(dataclasses.asdict(info))


def _reason(code: str | None, detail: str | None) -> wire.Reason | None:
    return None if code is None else wire.Reason(code=code, detail=detail or "")
