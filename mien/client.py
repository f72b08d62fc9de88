"""A typed client of Mien's HTTP API. It raises the same errors as the server (``mien.errors``), by their codes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import requests

from mien import errors, wire
from mien.client_parts import ClientParts
from mien.transport import path_part

Download = Literal["results.csv", "results.jsonl", "errors.csv", "images.csv"]

LONG_POLL_S = 20.0
PATIENCE_S = 60.0
"""How long :meth:`Client.wait` bears a front end that is away (a restart, a broken connection)."""
RETRY_EVERY_S = 1.0
BLOCK = 1 << 16


@dataclass(frozen=True)
class Saved:
    """A finished download: its size, and whether every image of the job had its outcome when it was made."""

    bytes: int
    complete: bool


class Client(ClientParts):
    """Talks to one Mien. Not shared between threads."""

    def submit_folder(
        self,
        path: str | os.PathLike[str],
        *,
        model: str | None = None,
        recursive: bool = True,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        faces: Literal["detect", "whole"] = "detect",
        precision: str | None = None,
        detect_size: int | None = None,
        min_face_score: float | None = None,
        min_face: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> wire.JobStatus:
        """Submit a folder on the server's file system and give the job as it was accepted.

        Raises:
            SourceError, ModelError, UnprocessableError, InvalidRequestError: what is wrong, by ``field``.
        """
        options = {
            "faces": faces,
            "precision": precision,
            "detect_size": detect_size,
            "min_face_score": min_face_score,
            "min_face": min_face,
        }
        body = {
            "source": {
                "type": "folder",
                "path": os.fspath(path),
                "recursive": recursive,
                "include": list(include),
                "exclude": list(exclude),
            },
            "model": model,
            "options": {name: value for name, value in options.items() if value is not None},
            "metadata": dict(metadata or {}),
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._read(wire.JobStatus, self._ask("POST", "/jobs", json=body, headers=headers))

    def job(self, job_id: str) -> wire.JobStatus:
        """The job now."""
        return self._read(wire.JobStatus, self._ask("GET", f"/jobs/{path_part(job_id)}"))

    def wait(self, job_id: str, *, patience_s: float = PATIENCE_S) -> Iterator[wire.JobStatus]:
        """Every new state of the job, by long-polling, until it has ended; the last one given is the end.

        Raises:
            UnavailableError: the front end was away for longer than ``patience_s``.
            NotFoundError: the job was deleted meanwhile.
        """
        tag, away_since = "", None
        while True:
            headers = {"If-None-Match": tag} if tag else {}
            query = {"wait": LONG_POLL_S if tag else 0}
            try:
                answer = self._ask(
                    "GET",
                    f"/jobs/{path_part(job_id)}",
                    params=query,
                    headers=headers,
                    timeout_s=self.timeout_s + LONG_POLL_S,
                )
            except errors.UnavailableError:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > patience_s:
                    raise
                time.sleep(RETRY_EVERY_S)
                continue
            away_since = None
            if answer.status_code == requests.codes.not_modified:
                if answer.elapsed.total_seconds() < RETRY_EVERY_S:
                    time.sleep(RETRY_EVERY_S)  # the server has no thread to spare for waiting
                continue
            tag = answer.headers.get("ETag", "")
            job = self._read(wire.JobStatus, answer)
            yield job
            if job.is_final:
                return
            if not tag:
                time.sleep(RETRY_EVERY_S)

    def jobs(self, *, status: wire.Status | None = None, limit: int | None = None) -> Iterator[wire.JobStatus]:
        """The jobs of this key's owner, newest first; at most ``limit`` of them."""
        query = {"status": status, "limit": min(limit or 100, 1000)}
        given = 0
        for page in self._pages(wire.JobPage, "/jobs", query):
            for job in page.items:
                if limit is not None and given >= limit:
                    return
                yield job
                given += 1
            if limit is not None and given >= limit:
                return

    def results(
        self,
        job_id: str,
        *,
        emotion: str | None = None,
        outcome: wire.Outcome | None = None,
        min_confidence: float | None = None,
        max_confidence: float | None = None,
        prefix: str | None = None,
        page_size: int = 500,
    ) -> Iterator[wire.ImageResult]:
        """The images that have their outcome now, with their faces, in the order in which they were written."""
        query = {
            "emotion": emotion,
            "outcome": outcome,
            "min_confidence": min_confidence,
            "max_confidence": max_confidence,
            "prefix": prefix,
            "limit": page_size,
        }
        for page in self._pages(wire.ResultPage, f"/jobs/{path_part(job_id)}/results", query):
            yield from page.items

    def download(
        self,
        job_id: str,
        kind: Download,
        file: IO[bytes] | str | os.PathLike[str],
        *,
        spreadsheet: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Saved:
        """Stream an export into ``file``: an open binary file, or a path, which is replaced only by a whole download.

        Raises:
            UnavailableError: the connection broke before the end (``download_broken``); a path was left as it was.
        """
        query = {"spreadsheet": 1} if spreadsheet else {}
        answer = self._ask("GET", f"/jobs/{path_part(job_id)}/{kind}", params=query, stream=True)
        with answer:
            complete = answer.headers.get("Mien-Complete") == "true"
            if isinstance(file, str | os.PathLike):
                return Saved(_save(answer, Path(file), progress), complete)
            return Saved(_copy(answer, file, progress), complete)

    def summary(self, job_id: str) -> wire.Summary:
        """Faces per label, outcomes, errors, confidence and times."""
        return self._read(wire.Summary, self._ask("GET", f"/jobs/{path_part(job_id)}/summary"))

    def provenance(self, job_id: str) -> dict[str, Any]:
        """How the job's results were made."""
        found: dict[str, Any] = self._json(self._ask("GET", f"/jobs/{path_part(job_id)}/provenance"))
        return found

    def cite(self, job_id: str) -> wire.Citation:
        """A methods sentence and a BibTeX entry."""
        return self._read(wire.Citation, self._ask("GET", f"/jobs/{path_part(job_id)}/cite"))

    def cancel(self, job_id: str) -> wire.JobStatus:
        """Ask for the job's end; what is classified stays."""
        return self._read(wire.JobStatus, self._ask("POST", f"/jobs/{path_part(job_id)}/cancel"))

    def retry(self, job_id: str) -> wire.JobStatus:
        """Ask for the failed images to be tried again."""
        return self._read(wire.JobStatus, self._ask("POST", f"/jobs/{path_part(job_id)}/retry"))

    def delete(self, job_id: str) -> wire.JobStatus:
        """Ask for the job and everything of it to be deleted; soon after it is unknown."""
        return self._read(wire.JobStatus, self._ask("DELETE", f"/jobs/{path_part(job_id)}"))

    def models(self) -> list[wire.ModelInfo]:
        """The installed models."""
        return self._read(wire.ModelList, self._ask("GET", "/models")).items

    def workers(self) -> list[wire.Worker]:
        """The live workers."""
        return self._read(wire.WorkerList, self._ask("GET", "/workers")).items


def _copy(answer: requests.Response, file: IO[bytes], progress: Callable[[int], None] | None) -> int:
    size = 0
    try:
        for block in answer.iter_content(BLOCK):
            file.write(block)
            size += len(block)
            if progress:
                progress(size)
    except requests.RequestException as error:
        raise errors.UnavailableError(
            f"The download broke off after {size} bytes ({type(error).__name__}); begin it again.",
            code="download_broken",
        ) from None
    return size


def _save(answer: requests.Response, path: Path, progress: Callable[[int], None] | None) -> int:
    """Write beside ``path`` and rename: whoever finds the file finds all of it."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = _copy(answer, file, progress)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return size


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
