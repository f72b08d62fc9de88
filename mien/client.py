"""A typed client of Mien's HTTP API. It raises the same errors as the server (``mien.errors``), by their codes."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import requests

from mien import errors, wire
from mien.client_compare import ClientCompare
from mien.client_parts import ClientParts
from mien.client_results import ANY_JOB, Among, ClientResults, Download, Saved
from mien.client_reviews import ClientReviews
from mien.client_uploads import ClientUploads
from mien.client_webhooks import ClientWebhooks
from mien.states import Status
from mien.transport import path_part

__all__ = ["Among", "Client", "Download", "Saved"]

LONG_POLL_S = 20.0
PATIENCE_S = 60.0
"""How long :meth:`Client.wait` bears a front end that is away (a restart, a broken connection)."""
RETRY_EVERY_S = 1.0


class Client(ClientUploads, ClientParts, ClientResults, ClientReviews, ClientWebhooks, ClientCompare):
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
        keep_results: int | None = None,
        idempotency_key: str | None = None,
    ) -> wire.JobStatus:
        """Submit a folder on the server's file system and give the job as it was accepted.

        ``keep_results`` is how many seconds after its end the job is deleted; None: as the server's settings say.

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
            "keep_results": keep_results,
        }
        # a key of its own even where none was given: when an answer is lost, asking again makes no second job
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
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

    def jobs(
        self, *, status: Status | None = None, among: Among = ANY_JOB, limit: int | None = None
    ) -> Iterator[wire.JobStatus]:
        """The jobs of this key's owner, or those chosen, newest first; at most ``limit`` of them."""
        query = {**among.query(), "limit": min(limit or 100, 1000)} | ({"status": status} if status else {})
        pages = self._pages(wire.JobPage, "/jobs", query)
        yield from islice((job for page in pages for job in page.items), limit)

    def cancel(self, job_id: str) -> wire.JobStatus:
        """Ask for the job's end; what is classified stays."""
        return self._read(wire.JobStatus, self._ask("POST", f"/jobs/{path_part(job_id)}/cancel"))

    def retry(self, job_id: str) -> wire.JobStatus:
        """Ask for the failed images to be tried again."""
        return self._read(wire.JobStatus, self._ask("POST", f"/jobs/{path_part(job_id)}/retry"))
