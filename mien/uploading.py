"""A folder on its way to a server elsewhere: in parallel, in requests of a handy size, again where one fails."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import IO

from mien import errors
from mien.client import Client
from mien.form_body import Sending
from mien.paths import exact_name
from mien.sources import Found, open_image, walk

REQUEST_FILES = 200
REQUEST_BYTES = 16 << 20
PATIENCE_S = 120.0
"""How long a server may be away before the upload is given up (it can be taken up again)."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
_REFUSALS = (errors.InvalidRequestError, errors.UnprocessableError, errors.TooLargeError)
"""One image may be the cause of these."""
_OF_THE_JOB = frozenset({"job_too_large"})


@dataclass(frozen=True)
class Choice:
    """Which files of a folder."""

    folder: bytes
    recursive: bool = True
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def paths(self) -> Iterator[bytes]:
        """Their paths, by the same rules as a folder on the server."""
        found = walk(self.folder, recursive=self.recursive, include=self.include, exclude=self.exclude)
        return (item.path for item in found if isinstance(item, Found))


@dataclass
class Progress:
    """How far the upload is."""

    files: int = 0
    """Files that have arrived, now or earlier."""
    size: int = 0
    there_already: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Files that were not sent, or not taken, with the reason."""


@dataclass
class FolderUpload:
    """Uploads the files of ``choice`` into the draft ``job_id``; ``connect`` makes a client for each thread."""

    connect: Callable[[], Client]
    job_id: str
    choice: Choice
    parallel: int = 4
    show: Callable[[Progress], None] = lambda progress: None
    progress: Progress = field(default_factory=Progress)
    _local: threading.local = field(default_factory=threading.local)
    _clients: list[Client] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self, arrived: Mapping[str, tuple[int, str]] | None = None) -> Progress:
        """Send what is not there yet; ``arrived`` is what is: (bytes, SHA-256) by name.

        Raises:
            ConflictError, NotFoundError, UnauthorizedError, ForbiddenError: the draft takes nothing (any more).
            NoSpaceError, TooLargeError, LimitError: the server takes no more.
            UnavailableError: it was away for too long. What arrived stays there.
        """
        pool = ThreadPoolExecutor(self.parallel, thread_name_prefix="upload")
        under_way: set[Future[None]] = set()
        try:
            for batch in self._batches(arrived or {}):
                under_way.add(pool.submit(self._send, batch))
                if len(under_way) > self.parallel:
                    under_way = self._settled(under_way)
            while under_way:
                under_way = self._settled(under_way)
        except BaseException:
            self._over.set()  # no thread waits for a server any longer
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for client in self._clients:
                client.close()
        return self.progress

    def _settled(self, under_way: set[Future[None]]) -> set[Future[None]]:
        done, rest = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        return rest

    def _batches(self, arrived: Mapping[str, tuple[int, str]]) -> Iterator[list[Sending]]:
        batch: list[Sending] = []
        size = 0
        for path in self.choice.paths():
            image = self._checked(path, arrived.get(exact_name(path)))
            if image is None:
                continue
            if batch and (len(batch) >= REQUEST_FILES or size + image.size > REQUEST_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(image)
            size += image.size
        if batch:
            yield batch

    def _checked(self, path: bytes, known: tuple[int, str] | None) -> Sending | None:
        """The image to send; None if it is there already, or cannot be read."""
        opener = partial(_open, self.choice.folder, path)
        try:
            with opener() as file:
                size = os.fstat(file.fileno()).st_size
                same = known is not None and known[0] == size and known[1] == _sha256(file)
        except (errors.ImageError, OSError) as error:
            self._note(refused=(exact_name(path), str(error)))
            return None
        if same:
            self._note(files=1, size=size, there_already=1)
            return None
        return Sending(path, opener, size)

    def _send(self, batch: list[Sending]) -> None:
        try:
            self._send_patiently(batch)
        except _REFUSALS as error:
            if error.code in _OF_THE_JOB:
                raise
            if len(batch) == 1:
                self._note(refused=(exact_name(batch[0].path), error.detail))
                return
            for image in batch:  # one of them is to blame: it alone shall stay behind
                self._send([image])
        except (errors.ImageError, OSError) as error:
            if len(batch) == 1:
                self._note(refused=(exact_name(batch[0].path), str(error)))
                return
            for image in batch:  # a file has gone since it was looked at
                if (again := self._checked(image.path, None)) is not None:
                    self._send([again])
        else:
            self._note(files=len(batch), size=sum(image.size for image in batch))

    def _send_patiently(self, batch: list[Sending]) -> None:
        pause, since = FIRST_PAUSE_S, time.monotonic()
        while True:
            try:
                self._client().upload(self.job_id, batch)
            except errors.UnavailableError:
                if time.monotonic() - since > PATIENCE_S or self._over.wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except errors.LimitError as error:
                if error.retry_after_s > PATIENCE_S or self._over.wait(error.retry_after_s):
                    raise
            else:
                return

    def _client(self) -> Client:
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self.connect()
            with self._lock:
                self._clients.append(client)
        return client

    def _note(
        self, *, files: int = 0, size: int = 0, there_already: int = 0, refused: tuple[str, str] | None = None
    ) -> None:
        with self._lock:
            self.progress.files += files
            self.progress.size += size
            self.progress.there_already += there_already
            if refused is not None:
                self.progress.refused.append(refused)
            self.show(self.progress)


def _open(folder: bytes, path: bytes) -> IO[bytes]:
    return os.fdopen(open_image(folder, path), "rb")


def _sha256(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def measure(choice: Choice) -> tuple[int, int]:
    """How many files there are, and their bytes."""
    files = size = 0
    for path in choice.paths():
        files += 1
        try:
            size += os.stat(os.path.join(choice.folder, path)).st_size  # noqa: PTH116, PTH118 - paths are bytes
        except OSError:
            continue  # it will be told when it is sent
    return files, size
