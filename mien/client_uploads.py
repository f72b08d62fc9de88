"""Parts of :class:`mien.client.Client`: images that are sent to the server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from mien import wire
from mien.form_body import FormBody, Sending
from mien.transport import Transport, path_part

UPLOAD_TIMEOUT_S = 300.0
"""Seconds that the server may take over the end of an upload, until it has all of it safely on its disk."""
_KINDS = {".zip": "application/zip", ".tar": "application/x-tar"}


class ClientUploads(Transport):
    """Uploading: into a draft, in as many requests as it takes, or all in one."""

    def create_draft(
        self,
        *,
        model: str | None = None,
        options: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> wire.JobStatus:
        """Make a job that takes uploads until it is submitted.

        ``options`` are those of :meth:`mien.client.Client.submit_folder`: faces, precision, detect_size,
        min_face_score, min_face; ``more`` are further fields of the request (``keep_images``, ``keep_results``).

        Raises:
            ModelError, UnprocessableError, InvalidRequestError: what is wrong, by ``field``.
        """
        body = {"source": {"type": "upload"}, **_asked(model, options, metadata), **more}
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._read(wire.JobStatus, self._ask("POST", "/jobs", json=body, headers=headers))

    def upload(self, job_id: str, images: Sequence[Sending] | Mapping[str, bytes | os.PathLike[str]]) -> wire.Received:
        """Send up to 1,000 images into a draft: their bytes, or paths of files here, by the names they are to have.

        Raises:
            ConflictError: ``not_a_draft``.
            TooLargeError, NoSpaceError: with what and how much.
            UnavailableError: the connection broke; what arrived whole stays, and may be sent again.
        """
        body = FormBody(_sendings(images))
        answer = self._ask(
            "POST",
            f"/jobs/{path_part(job_id)}/images",
            data=body,
            headers={"Content-Type": body.content_type},
            timeout_s=UPLOAD_TIMEOUT_S,
        )
        return self._read(wire.Received, answer)

    def upload_archive(self, job_id: str, archive: str | os.PathLike[str]) -> wire.Received:
        """Send a zip, a tar or a gzipped tar into a draft; the server unpacks it as it comes.

        Raises:
            UnprocessableError: the archive is damaged or unsafe.
            ConflictError, TooLargeError, NoSpaceError, UnavailableError: as :meth:`upload`.
        """
        path = Path(archive)
        with path.open("rb") as file:
            answer = self._ask(
                "POST",
                f"/jobs/{path_part(job_id)}/images",
                data=file,
                headers={"Content-Type": _KINDS.get(path.suffix.lower(), "application/gzip")},
                timeout_s=UPLOAD_TIMEOUT_S,
            )
        return self._read(wire.Received, answer)

    def uploads(self, job_id: str) -> Iterator[wire.UploadedFile]:
        """What has arrived in a job and is kept, in path order."""
        for page in self._pages(wire.UploadPage, f"/jobs/{path_part(job_id)}/images", {"limit": 1000}):
            yield from page.items

    def submit(self, job_id: str) -> wire.JobStatus:
        """Submit a draft: what has arrived is all there is.

        Raises:
            ConflictError: ``not_a_draft``, ``draft_empty``.
        """
        return self._read(wire.JobStatus, self._ask("POST", f"/jobs/{path_part(job_id)}/submit"))

    def submit_images(
        self,
        images: Sequence[Sending] | Mapping[str, bytes | os.PathLike[str]],
        *,
        model: str | None = None,
        options: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> wire.JobStatus:
        """Make a job with up to 1,000 images in one request; their names come back unchanged in the results.

        Raises:
            ModelError, UnprocessableError, InvalidRequestError, TooLargeError, NoSpaceError: nothing was kept.
        """
        job = json.dumps({**_asked(model, options, metadata), **more}).encode()
        body = FormBody(_sendings(images), job)
        headers = {"Content-Type": body.content_type}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        answer = self._ask("POST", "/jobs", data=body, headers=headers, timeout_s=UPLOAD_TIMEOUT_S)
        return self._read(wire.JobStatus, answer)


def _asked(model: str | None, options: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "model": model,
        "options": {name: value for name, value in (options or {}).items() if value is not None},
        "metadata": dict(metadata or {}),
    }


def _open(file: Path) -> IO[bytes]:
    return file.open("rb")


def _sendings(images: Sequence[Sending] | Mapping[str, bytes | os.PathLike[str]]) -> Sequence[Sending]:
    if not isinstance(images, Mapping):
        return images
    found = []
    for name, content in images.items():
        path = os.fsencode(name)
        if isinstance(content, bytes):
            found.append(Sending(path, content, len(content)))
        else:
            file = Path(content)
            found.append(Sending(path, partial(_open, file), file.stat().st_size))
    return found
