"""Parts of :class:`mien.client.Client`: results, of a job and across jobs; files; data frames; models."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import requests

from mien import errors, wire_results, wire_system
from mien.states import Outcome, Status
from mien.transport import Transport, path_part

if TYPE_CHECKING:
    from pandas import DataFrame

Download = Literal[
    "results.csv",
    "results.csv.gz",
    "results.jsonl",
    "results.jsonl.gz",
    "results.parquet",
    "errors.csv",
    "images.csv",
    "answers.csv",
    "answers.jsonl",
]

BLOCK = 1 << 16
PART = 100_000
"""Images in a part of a download: what is lost when a connection breaks is at most this."""
BREAKS_BORNE = 3
"""Times that one part may break off before the download is given up."""
_TEXT = ("file", "emotion", "status", "error")


@dataclass(frozen=True)
class Saved:
    """A finished download: its size, and whether every image of the job had its outcome when it was made."""

    bytes: int
    complete: bool


@dataclass(frozen=True)
class Among:
    """Which jobs; None and empty: any. Times need a zone; ``metadata`` holds plain values."""

    status: Status | None = None
    model: str | None = None
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    finished_after: dt.datetime | None = None
    finished_before: dt.datetime | None = None
    metadata: Mapping[str, str | int | float] | None = None

    def query(self) -> dict[str, Any]:
        """As parameters of the API."""
        plain = {name: value for name, value in vars(self).items() if name != "metadata" and value is not None}
        times = {name: value.isoformat() for name, value in plain.items() if isinstance(value, dt.datetime)}
        found = {f"metadata.{key}": _plain(value) for key, value in (self.metadata or {}).items()}
        return {**plain, **times, **found}


ANY_JOB = Among()


class ClientResults(Transport):
    """What a client can read."""

    def results(
        self,
        job_id: str,
        *,
        emotion: str | None = None,
        outcome: Outcome | None = None,
        min_confidence: float | None = None,
        max_confidence: float | None = None,
        prefix: str | None = None,
        page_size: int = 500,
    ) -> Iterator[wire_results.ImageResult]:
        """The images that have their outcome now, with their faces, in the order in which they were written."""
        query = _filters(emotion, outcome, min_confidence, max_confidence, prefix) | {"limit": page_size}
        for page in self._pages(wire_results.ResultPage, f"/jobs/{path_part(job_id)}/results", query):
            yield from page.items

    def results_across(
        self,
        among: Among = ANY_JOB,
        *,
        emotion: str | None = None,
        outcome: Outcome | None = None,
        min_confidence: float | None = None,
        max_confidence: float | None = None,
        prefix: str | None = None,
        page_size: int = 500,
    ) -> Iterator[wire_results.JobImageResult]:
        """The same over all jobs of this key's owner, or over those chosen: by job, oldest first."""
        query = _filters(emotion, outcome, min_confidence, max_confidence, prefix) | {"limit": page_size}
        for page in self._pages(wire_results.ResultsAcrossPage, "/results", query | among.query()):
            yield from page.items

    def summary(self, job_id: str, *, folder: str = "") -> wire_results.Summary:
        """Faces per label, outcomes, errors, confidence and times; of the job, or of one of its folders."""
        query = {"folder": folder or None}
        return self._read(wire_results.Summary, self._ask("GET", f"/jobs/{path_part(job_id)}/summary", params=query))

    def folders(self, job_id: str, *, folder: str = "") -> Iterator[wire_results.FolderSummary]:
        """The folders directly in ``folder``, each with all below it, in numbers."""
        for page in self._pages(
            wire_results.FolderPage, f"/jobs/{path_part(job_id)}/folders", {"folder": folder or None}
        ):
            yield from page.items

    def overall_summary(self, among: Among = ANY_JOB) -> wire_results.OverallSummary:
        """All jobs of this key's owner, or those chosen, in numbers."""
        return self._read(wire_results.OverallSummary, self._ask("GET", "/summary", params=among.query()))

    def provenance(self, job_id: str) -> dict[str, Any]:
        """How the job's results were made."""
        found: dict[str, Any] = self._json(self._ask("GET", f"/jobs/{path_part(job_id)}/provenance"))
        return found

    def cite(self, job_id: str) -> wire_results.Citation:
        """A methods sentence and a BibTeX entry."""
        return self._read(wire_results.Citation, self._ask("GET", f"/jobs/{path_part(job_id)}/cite"))

    def download(
        self,
        job_id: str,
        kind: Download,
        file: IO[bytes] | str | os.PathLike[str],
        *,
        spreadsheet: bool = False,
        columns: Sequence[str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Saved:
        """Stream an export into ``file``: an open binary file, or a path, which is replaced only by a whole download.

        A table of text comes in parts; where the connection breaks, it goes on with the part that broke (not into a
        pipe, which cannot take back what it has).

        Raises:
            UnavailableError: the connection broke again and again (``download_broken``); a path was left as it was.
        """
        query = {"spreadsheet": 1 if spreadsheet else None, "columns": ",".join(columns) if columns else None}
        address = f"/jobs/{path_part(job_id)}/{kind}"
        if isinstance(file, str | os.PathLike):
            with _replaced(Path(file)) as fresh:
                return self._fetch(address, query, fresh, progress)
        return self._fetch(address, query, file, progress)

    def data_frame(self, job_id: str, *, columns: Sequence[str] | None = None) -> DataFrame:
        """The rows of results.csv as a pandas data frame: texts as ``string``, ``face`` as ``Int64``, else floats.

        Raises:
            UnprocessableError: ``pandas_missing``.
        """
        try:
            import pandas  # noqa: PLC0415 - large, and wanted here only
        except ModuleNotFoundError:
            raise errors.UnprocessableError(
                "Data frames need pandas: pip install 'mien[pandas]'.", code="pandas_missing"
            ) from None
        with tempfile.TemporaryFile() as file:
            self.download(job_id, "results.csv", file, columns=columns)
            file.seek(0)
            # a file may be called NA: only numbers can be missing by being empty
            frame = pandas.read_csv(file, dtype=dict.fromkeys(_TEXT, "string"), keep_default_na=False, na_values=[""])
        for name in set(frame.columns).difference(_TEXT):
            frame[name] = frame[name].astype("Int64" if name == "face" else "float64")
        return frame

    def models(self) -> list[wire_system.ModelInfo]:
        """The installed models."""
        return self._read(wire_system.ModelList, self._ask("GET", "/models")).items

    def model(self, name: str = "default") -> wire_system.ModelCard:
        """A model with its card, and the workers that can serve it.

        Raises:
            NotFoundError: ``unknown_model``.
        """
        return self._read(wire_system.ModelCard, self._ask("GET", f"/models/{path_part(name)}"))

    def choose_default_model(self, model: str) -> wire_system.ModelInfo:
        """Choose the model of jobs that name none; needs a key of scope admin."""
        return self._read(wire_system.ModelInfo, self._ask("PUT", "/models/default", json={"model": model}))

    def workers(self) -> list[wire_system.Worker]:
        """The live workers."""
        return self._read(wire_system.WorkerList, self._ask("GET", "/workers")).items

    def set_worker_state(self, name: str, state: Literal["active", "paused", "drained"]) -> wire_system.Worker:
        """Let a worker work, put its work down and wait, or finish it and take no more; needs a key of scope admin.

        Raises:
            NotFoundError: ``unknown_worker``.
        """
        answer = self._ask("PUT", f"/workers/{path_part(name)}/state", json={"state": state})
        return self._read(wire_system.Worker, answer)

    def _fetch(
        self, address: str, query: Mapping[str, Any], file: IO[bytes], progress: Callable[[int], None] | None
    ) -> Saved:
        """The export, part by part where it can be."""
        whole = (".gz", ".parquet", "/answers.csv", "/answers.jsonl")
        in_parts = not address.endswith(whole) and file.seekable()
        after: str | None = None
        size, complete = 0, True
        while True:
            part = {"limit": PART, "after": after} if in_parts else {}
            answer, came = self._fetch_part(address, {**query, **part}, file, _from(size, progress), again=in_parts)
            size += came
            complete = complete and answer.headers.get("Mien-Complete") == "true"
            after = answer.headers.get("Mien-Next")
            if after is None:
                return Saved(size, complete)

    def _fetch_part(
        self,
        address: str,
        query: Mapping[str, Any],
        file: IO[bytes],
        progress: Callable[[int], None] | None,
        *,
        again: bool,
    ) -> tuple[requests.Response, int]:
        start = file.tell() if again else 0
        broken: errors.UnavailableError | None = None
        for attempt in range(BREAKS_BORNE + 1):
            if broken is not None:
                file.seek(start)
                file.truncate()
                time.sleep(0.2 * 2**attempt)
            try:
                with self._ask("GET", address, params=query, stream=True) as answer:
                    return answer, _copy(answer, file, progress)
            except errors.MienError as error:
                if isinstance(error, errors.UnavailableError) and error.code == "download_broken" and again:
                    broken = error
                    continue
                # after a break: the job was deleted under the download, which is why it broke
                raise (broken or error) from None
        raise broken or AssertionError("unreachable")


def _filters(
    emotion: str | None, outcome: str | None, low: float | None, high: float | None, prefix: str | None
) -> dict[str, Any]:
    return {
        "emotion": emotion,
        "outcome": outcome,
        "min_confidence": low,
        "max_confidence": high,
        "prefix": prefix,
    }


def _plain(value: str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _from(before: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """``progress``, told of the bytes before as well."""
    return None if progress is None else lambda size: progress(before + size)


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


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """A file beside ``path`` that takes its name at the end: whoever finds the file finds all of it."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
