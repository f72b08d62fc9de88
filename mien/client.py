"""A typed client of Mien's HTTP API. It raises the same errors as the server (``mien.errors``), by their codes."""

from __future__ import annotations

import ipaddress
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import ValidationError

from mien import __version__, errors, wire

M = TypeVar("M", bound=wire.Wire)
Download = Literal["results.csv", "results.jsonl", "errors.csv", "images.csv"]

TIMEOUT_S = 30.0
LONG_POLL_S = 20.0
PATIENCE_S = 60.0
"""How long :meth:`Client.wait` bears a front end that is away (a restart, a broken connection)."""
RETRY_EVERY_S = 1.0
BLOCK = 1 << 16

_BY_STATUS: dict[int, type[errors.MienError]] = {
    400: errors.InvalidRequestError,
    401: errors.UnauthorizedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    422: errors.UnprocessableError,
    503: errors.UnavailableError,
}


@dataclass(frozen=True)
class Saved:
    """A finished download: its size, and whether every image of the job had its outcome when it was made."""

    bytes: int
    complete: bool


class Client:
    """Talks to one Mien. Not shared between threads.

    Args:
        url: the front end's address, as ``http://127.0.0.1:8616``.
        key: an API key or the local token; None where the front end is open (loopback without keys).
        timeout_s: seconds to wait for an answer to begin.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.SettingsError(f"{url!r} is not the address of a Mien; write it like http://127.0.0.1:8616.")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._http = requests.Session()
        self._http.headers["User-Agent"] = f"mien/{__version__}"
        # an explicit hook: a ~/.netrc entry would otherwise replace the Authorization header
        self._http.auth = _bearer(key)
        if _is_loopback(parts.hostname):
            self._http.trust_env = False  # a proxy has no business between this machine and itself

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
        return self._read(wire.JobStatus, self._ask("GET", f"/jobs/{_part(job_id)}"))

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
                    f"/jobs/{_part(job_id)}",
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
        for page in self._pages(wire.ResultPage, f"/jobs/{_part(job_id)}/results", query):
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
        answer = self._ask("GET", f"/jobs/{_part(job_id)}/{kind}", params=query, stream=True)
        with answer:
            complete = answer.headers.get("Mien-Complete") == "true"
            if isinstance(file, str | os.PathLike):
                return Saved(_save(answer, Path(file), progress), complete)
            return Saved(_copy(answer, file, progress), complete)

    def summary(self, job_id: str) -> wire.Summary:
        """Faces per label, outcomes, errors, confidence and times."""
        return self._read(wire.Summary, self._ask("GET", f"/jobs/{_part(job_id)}/summary"))

    def provenance(self, job_id: str) -> dict[str, Any]:
        """How the job's results were made."""
        found: dict[str, Any] = self._json(self._ask("GET", f"/jobs/{_part(job_id)}/provenance"))
        return found

    def cite(self, job_id: str) -> wire.Citation:
        """A methods sentence and a BibTeX entry."""
        return self._read(wire.Citation, self._ask("GET", f"/jobs/{_part(job_id)}/cite"))

    def cancel(self, job_id: str) -> wire.JobStatus:
        """Ask for the job's end; what is classified stays."""
        return self._read(wire.JobStatus, self._ask("POST", f"/jobs/{_part(job_id)}/cancel"))

    def retry(self, job_id: str) -> wire.JobStatus:
        """Ask for the failed images to be tried again."""
        return self._read(wire.JobStatus, self._ask("POST", f"/jobs/{_part(job_id)}/retry"))

    def delete(self, job_id: str) -> wire.JobStatus:
        """Ask for the job and everything of it to be deleted; soon after it is unknown."""
        return self._read(wire.JobStatus, self._ask("DELETE", f"/jobs/{_part(job_id)}"))

    def models(self) -> list[wire.ModelInfo]:
        """The installed models."""
        return self._read(wire.ModelList, self._ask("GET", "/models")).items

    def workers(self) -> list[wire.Worker]:
        """The live workers."""
        return self._read(wire.WorkerList, self._ask("GET", "/workers")).items

    def is_alive(self) -> bool:
        """Whether a Mien answers at this address."""
        try:
            answer = self._http.get(f"{self.url}/healthz", timeout=min(self.timeout_s, 5), allow_redirects=False)
        except requests.RequestException:
            return False
        return answer.ok and answer.headers.get("Content-Type", "").startswith("application/json")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pages(self, model: type[M], path: str, query: Mapping[str, Any]) -> Iterator[M]:
        after: str | None = None
        while True:
            page = self._read(model, self._ask("GET", path, params={**query, "after": after}))
            yield page
            after = page.next  # type: ignore[attr-defined]
            if not page.has_more:  # type: ignore[attr-defined]
                return

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout_s: float | None = None,
    ) -> requests.Response:
        try:
            answer = self._http.request(
                method,
                f"{self.url}/api/v1{path}",
                params={name: value for name, value in (params or {}).items() if value is not None},
                json=json,
                headers={"Accept": "application/json, */*", **(headers or {})},
                stream=stream,
                timeout=(5, timeout_s or self.timeout_s),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise _nobody(self.url, error) from None
        if answer.status_code >= requests.codes.multiple_choices and answer.status_code != requests.codes.not_modified:
            raise _rebuilt(answer, self.url)
        return answer

    def _read(self, model: type[M], answer: requests.Response) -> M:
        try:
            return model.model_validate(self._json(answer))
        except ValidationError:
            raise _not_mien(self.url) from None

    def _json(self, answer: requests.Response) -> Any:
        try:
            return answer.json()
        except (requests.RequestException, ValueError):
            raise _not_mien(self.url) from None


def _bearer(key: str | None) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    def add(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    return add


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _part(job_id: str) -> str:
    return quote(job_id, safe="")


def _nobody(url: str, error: Exception) -> errors.UnavailableError:
    if isinstance(error, requests.Timeout):
        return errors.UnavailableError(f"Mien at {url} did not answer in time.", code="no_answer")
    if isinstance(error, requests.exceptions.SSLError):
        return errors.UnavailableError(f"No safe connection to {url}: {error}", code="no_answer")
    return errors.UnavailableError(
        f"Nothing answers at {url}. Start Mien there with `mien up`, or name another address in MIEN_URL.",
        code="no_server",
    )


def _not_mien(url: str) -> errors.MienError:
    return errors.UnavailableError(f"What answers at {url} is not a Mien of this version.", code="not_a_mien")


def _rebuilt(answer: requests.Response, url: str) -> errors.MienError:
    """The server's error, as the exception it was there."""
    try:
        problem = wire.Problem.model_validate(answer.json())
    except (requests.RequestException, ValueError):
        if answer.status_code in (502, 503, 504):
            return errors.UnavailableError(f"Mien at {url} is not ready ({answer.status_code}).")
        return _not_mien(url)
    kind = _BY_STATUS.get(answer.status_code, errors.MienError)
    if kind is errors.UnprocessableError and problem.field:
        kind = {"source": errors.SourceError, "model": errors.ModelError}.get(problem.field.split(".")[0], kind)
    return kind(problem.detail, code=problem.code, field=problem.field)


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
