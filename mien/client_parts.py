"""Parts of :class:`mien.client.Client`: single images, running again, and deleting."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mien import errors, wire, wire_results
from mien.transport import Transport, path_part

PREDICT_TIMEOUT_S = 90.0
"""Longer than any front end lets a single image take (MIEN_PREDICT_TIMEOUT_S)."""


class ClientParts(Transport):
    """What a client can do besides submitting and watching jobs."""

    def predict(
        self,
        image: bytes | str | os.PathLike[str],
        *,
        model: str | None = None,
        faces: Literal["detect", "whole"] = "detect",
        precision: str | None = None,
        detect_size: int | None = None,
        min_face_score: float | None = None,
        min_face: int | None = None,
    ) -> wire_results.Prediction:
        """Classify one image at once: its bytes, or the path of a file here. Nothing of it is kept by the server.

        Raises:
            UnprocessableError: the image cannot be read; ``code`` is that of a failed image of a job.
            TooLargeError: the server takes no image of this size.
            UnavailableError, DeadlineError: no worker answers now; try again later.
        """
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        query = {
            "model": model,
            "faces": faces,
            "precision": precision,
            "detect_size": detect_size,
            "min_face_score": min_face_score,
            "min_face": min_face,
        }
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._ask("POST", "/predict", params=query, data=data, headers=headers, timeout_s=PREDICT_TIMEOUT_S)
        return self._read(wire_results.Prediction, answer)

    def rerun(
        self,
        job_id: str,
        *,
        model: str | None = None,
        options: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        keep_images: int | None = None,
        keep_results: int | None = None,
        idempotency_key: str | None = None,
    ) -> wire.JobStatus:
        """Run a job again as a new one over the same images; what is left out is as it was.

        Raises:
            ConflictError: ``job_is_draft``, ``job_deleting``, ``images_gone``.
            SourceError, ModelError, UnprocessableError, InvalidRequestError: what is wrong, by ``field``.
        """
        body = {
            "model": model,
            "options": options,
            "metadata": metadata,
            "keep_images": keep_images,
            "keep_results": keep_results,
        }
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        sent = {name: value for name, value in body.items() if value is not None}
        answer = self._ask("POST", f"/jobs/{path_part(job_id)}/rerun", json=sent, headers=headers)
        return self._read(wire.JobStatus, answer)

    def delete(self, job_id: str) -> wire.Receipt:
        """Ask for the job and everything of it to be deleted; soon after it is unknown."""
        return self._read(wire.Receipt, self._ask("DELETE", f"/jobs/{path_part(job_id)}"))

    def delete_images(self, job_id: str, *files: str) -> wire.Receipt:
        """Ask for single images of a job to be deleted (up to 100), by the ``file`` that results give them."""
        path = f"/jobs/{path_part(job_id)}/images"
        return self._read(wire.Receipt, self._ask("DELETE", path, params={"path": list(files)}))

    def delete_content(self, sha256: str) -> wire.Receipt:
        """Ask for every image with this SHA-256 (hexadecimal) in all of the owner's jobs to be deleted."""
        return self._read(wire.Receipt, self._ask("POST", "/deletions", json={"sha256": sha256}))

    def receipt(self, receipt_id: str) -> wire.Receipt:
        """What a deletion has deleted so far, and whether it is done."""
        return self._read(wire.Receipt, self._ask("GET", f"/receipts/{path_part(receipt_id)}"))

    def receipts(self) -> Iterator[wire.Receipt]:
        """The receipts of this owner's deletions, newest first."""
        for page in self._pages(wire.ReceiptPage, "/receipts", {"limit": 100}):
            yield from page.items

    def audit(
        self,
        *,
        owner: str | None = None,
        action: wire.AuditAction | None = None,
        job: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int | None = None,
    ) -> Iterator[wire.AuditEntry]:
        """The audit log, newest first, at most ``limit`` entries; times are ISO 8601 with a zone. For admins.

        Raises:
            ForbiddenError: ``scope_needed``.
        """
        among = {"owner": owner, "action": action, "job": job, "since": since, "until": until}
        left = limit
        for page in self._pages(wire.AuditPage, "/audit", {"limit": min(limit or 1000, 1000), **among}):
            yield from page.items if left is None else page.items[:left]
            left = None if left is None else left - len(page.items)
            if left is not None and left <= 0:
                return

    def wait_for_receipt(self, receipt_id: str, timeout_s: float = 60.0) -> wire.Receipt:
        """The receipt once it is finished.

        Raises:
            DeadlineError: it is not, after ``timeout_s``; the deletion goes on.
        """
        until = time.monotonic() + timeout_s
        pause = 0.05
        while (receipt := self.receipt(receipt_id)).finished_at is None:
            if time.monotonic() > until:
                raise errors.DeadlineError(f"The deletion of receipt {receipt_id} goes on; look again later.")
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        return receipt
