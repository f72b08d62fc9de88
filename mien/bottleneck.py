"""What holds a job back, in one sentence with what to change, read from its times per stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mien.stage_times import ENGINE_STAGES

ENOUGH_S = 1.0
"""Seconds of engine time below which nothing is said: the first images pay for opening the model."""
MUCH_READING = 0.25
"""Share of the engines' time beyond which waiting for files is what holds a job back."""
MUCH_WAITING = 0.30
"""The same for waiting while a processor was needed: others had it."""
MUCH_WRITING = 0.10
"""The ledger's time as a share of the engines' beyond which the database is named."""


@dataclass(frozen=True)
class Bottleneck:
    """``code`` is for programs: a stage, or ``cores``; ``detail`` is for people."""

    code: str
    detail: str


def find_bottleneck(
    worked: Mapping[str, float],
    waited: Mapping[str, float],
    *,
    images: int,
    precision: str,
    detect_size: int,
) -> Bottleneck | None:
    """What takes most of a job's time; None while too little is done to tell.

    Args:
        worked: seconds per stage of ``mien.stage_times.STAGES``, summed over images.
        waited: the same, waited.
        images: how many images have been read.
        detect_size: the longer side of the search for faces.
    """
    total = sum(worked[stage] + waited[stage] for stage in ENGINE_STAGES)
    if total < ENOUGH_S or not images:
        return None

    def share(seconds: float) -> str:
        return f"{100 * seconds / total:.0f}% of the engines' time, {1000 * seconds / images:.1f} ms an image"

    writing = worked["write"] + waited["write"]
    held_up = sum(waited[stage] for stage in ENGINE_STAGES if stage != "read")
    if waited["read"] > MUCH_READING * total:
        return Bottleneck(
            "read",
            f"Engines wait for the files ({share(waited['read'])}): the disk or the share is the limit. Copy the "
            "folder to a local disk, or set MIEN_ENGINES above the number of cores to read more files at once.",
        )
    if writing > MUCH_WRITING * total:
        return Bottleneck(
            "write",
            f"The database takes {share(writing)}. Put it on a faster disk or a machine of its own, or raise "
            "MIEN_CHUNK_S so that it is asked less often.",
        )
    if held_up > MUCH_WAITING * total:
        return Bottleneck(
            "cores",
            f"Engines wait for a processor core or the GPU ({share(held_up)}): other programs have it, or there are "
            "more engines than cores. End those, or set MIEN_ENGINES to the cores that are free.",
        )
    stage = max(ENGINE_STAGES, key=lambda name: worked[name] + waited[name])
    takes = share(worked[stage] + waited[stage])
    return Bottleneck(stage, f"{_NAMES[stage]} takes most: {takes}. {_advice(stage, precision, detect_size)}")


_NAMES = {
    "read": "Reading and hashing the files",
    "decode": "Decoding the images",
    "detect": "Finding faces",
    "classify": "Classifying the faces",
}


def _advice(stage: str, precision: str, detect_size: int) -> str:
    more = "more cores or workers share the work"
    if stage == "read":
        return f"A faster disk or smaller files help; {more}."
    if stage == "decode":
        return f"Smaller files help (large ones in PNG, WebP or HEIC cost most; JPEG is the fastest); {more}."
    if stage == "detect":
        smaller = (
            f"a smaller --detect-size than {detect_size} is faster and misses small faces"
            if detect_size > 320
            else more
        )
        return f"If the images are faces already cut out, use --faces whole; {smaller}."
    if precision == "fp32":
        return f"--precision int8 (`mien doctor` says what it gains here), a GPU or a smaller model is faster; {more}."
    return f"A GPU or a smaller model is faster; {more}."
