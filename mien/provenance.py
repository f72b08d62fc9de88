"""Provenance: everything a reader of a result needs to know how it was made, and how to cite it."""

from __future__ import annotations

from typing import Any

from mien import __version__
from mien.jobs import Job


def provenance(job: Job) -> dict[str, Any]:
    """What goes with every result of the job, as JSON."""
    return {
        "job": job.public_id,
        "status": job.status,
        "complete": job.complete,
        "source": {
            "type": job.source_type,
            "path": job.source_text if job.source_type == "folder" else None,
            "recursive": job.recursive,
            "include": job.include,
            "exclude": job.exclude,
        },
        **job.provenance,
        "counts": job.counts,
        "times": {name: None if t is None else t.isoformat() for name, t in job.times.items()},
        "stage_seconds": job.stage_seconds,
        "stage_waits": job.stage_waits,
        "metadata": job.metadata,
        "notice": (
            "Labels describe facial expressions as a model reads them, not what people feel. The model makes mistakes, "
            "more for some groups of people than for others."
        ),
    }


def methods_sentence(job: Job) -> str:
    """A sentence for the methods section of a paper."""
    made = job.provenance
    detector, crop = made.get("detector"), made.get("crop", {})
    colour = "grey" if crop.get("grey") else "colour"
    faces = (
        f"Faces were found with {detector['name']} (longer side {detector['size']} pixels, score at least "
        f"{detector['min_score']:g}) and cropped with a margin of {crop.get('margin', 0):g} of the box, in {colour}. "
        if detector
        else "Each image was classified as a whole. "
    )
    counts = job.counts
    return (
        f"Facial expressions were classified with Mien {made.get('mien_version', __version__)}, model {job.model} "
        f"(revision {job.model_revision[:12]}, {job.precision}; labels: {', '.join(job.labels)}). {faces}"
        f"Of {counts['total']} images, {counts['ok']} showed at least one face ({counts['faces']} faces), "
        f"{counts['no_face']} showed none and {counts['failed']} could not be read."
    )


def bibtex(job: Job) -> str:
    """A BibTeX entry for the software, in the version and with the model that made the job."""
    version = job.provenance.get("mien_version", __version__)
    created = job.times["created_at"]
    year = created.year if created else ""
    return (
        "@software{mien,\n"
        "  title   = {Mien: the expression on every face in a folder of photographs},\n"
        f"  version = {{{version}}},\n"
        f"  year    = {{{year}}},\n"
        f"  note    = {{Model {job.model}, revision {job.model_revision[:12]}, {job.precision}}}\n"
        "}"
    )
