"""Images in object storage: ``s3://bucket/prefix``, listed as a stream and read into memory, through s3fs.

s3fs (fsspec) brings the session, the credentials of the environment and the event loop. Keys go to S3's own two calls,
``ListObjectsV2`` and ``GetObject``: fsspec's paths would change keys that end in ``/`` or hold ``//``, and its listings
hold whole folders in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from mien.errors import ImageError, SourceError
from mien.paths import path_text
from mien.settings import Root, Settings

SCHEME = b"s3://"
PAGE = 1000
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
CHECK_TIMEOUT_S = 60
SESSION_S = 1.0
"""How long a session lives at least, whatever fails in it."""
ATTEMPTS = 3
"""How often the client asks before it gives up, of itself; then the storage as a whole is looked at."""
T = TypeVar("T")

_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_CHANGED = frozenset({"PreconditionFailed", "412"})
_REFUSED = frozenset(
    (
        *("400", "401", "403", "AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "ExpiredToken"),
        *("ExpiredTokenException", "Forbidden", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken"),
        *("RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired"),
    )
)
"""Answers that mean the server's credentials (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html)."""


@dataclass(frozen=True)
class Bucket:
    """A place in object storage: every key that begins with ``prefix``, which is empty or ends in ``/``."""

    name: str
    prefix: str

    @property
    def url(self) -> bytes:
        """As it is written: without the last slash."""
        return SCHEME + self.name.encode() + b"/" + self.prefix.encode().rstrip(b"/")


@dataclass(frozen=True)
class Listed:
    """One object of a listing: its key below the prefix in bytes, its size, and the tag of its content."""

    key: bytes
    size: int
    etag: str | None


class StoreAwayError(Exception):
    """The storage cannot be used just now: it is silent, refuses the credentials, or the bucket is gone.

    ``reason`` is a clause for people; it never holds an answer of the server's or anything of the credentials.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _TroubleError(Exception):
    """One call did not succeed; ``reason`` is a clause for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_objects(path: bytes) -> bool:
    """Whether a source path names object storage; a folder's begins with ``/``."""
    return path.startswith(SCHEME)


def bucket_of(path: bytes) -> Bucket:
    """The bucket and prefix that an address names.

    Raises:
        SourceError: ``source_missing``, it is not ``s3://bucket`` or ``s3://bucket/prefix``.
    """
    try:
        name, _, prefix = path.removeprefix(SCHEME).decode().partition("/")
    except UnicodeDecodeError:
        name = prefix = ""
    if not is_objects(path) or len(name) < 3 or "\0" in prefix:
        raise SourceError(
            f"{path_text(path)!r} names no object storage; write s3://bucket or s3://bucket/prefix.",
            code="source_missing",
            field="source.path",
        )
    prefix = prefix.rstrip("/")
    return Bucket(name, f"{prefix}/" if prefix else "")


def lies_below(bucket: Bucket, root: Root) -> bool:
    """Whether an allowed root covers this place; a folder covers none."""
    if not isinstance(root, str):
        return False
    allowed = bucket_of(root.encode())
    return bucket.name == allowed.name and bucket.prefix.startswith(allowed.prefix)


def object_store(settings: Settings) -> ObjectStore:
    """The storage as the settings describe it; one per process.

    Raises:
        StoreAwayError: the extra is not installed here.
    """
    return _store(settings.s3_endpoint_url, settings.s3_anonymous, settings.s3_reads)


@lru_cache(maxsize=4)
def _store(endpoint: str, anonymous: bool, reads: int) -> ObjectStore:
    return ObjectStore(endpoint, anonymous=anonymous, reads=reads)


def store_identity(settings: Settings, path: bytes) -> str:
    """What tells this bucket from one of the same name on another server; fits where a folder's identity stands."""
    return "s3:" + hashlib.sha256(f"{settings.s3_endpoint_url}|{bucket_of(path).name}".encode()).hexdigest()[:40]


class ObjectStore:
    """One S3 service with the credentials of this process's environment. Safe to share between threads."""

    def __init__(self, endpoint: str = "", *, anonymous: bool = False, reads: int = 16) -> None:
        try:
            import aiohttp  # noqa: PLC0415 - the extra mien[s3]
            import botocore.exceptions as raised  # noqa: PLC0415
            from fsspec.asyn import get_loop  # noqa: PLC0415
            from s3fs import S3FileSystem  # noqa: PLC0415
        except ImportError:
            raise StoreAwayError("support for object storage is not installed here (pip install 'mien[s3]')") from None
        self._make = S3FileSystem
        self._loop: asyncio.AbstractEventLoop = get_loop()
        self._told: tuple[type[BaseException], ...] = (raised.ClientError,)
        self._silent: tuple[type[BaseException], ...] = (
            raised.BotoCoreError, raised.HTTPClientError, aiohttp.ClientError, asyncio.TimeoutError, OSError,
        )  # fmt: skip
        self._credentials: tuple[type[BaseException], ...] = (
            raised.NoCredentialsError, raised.PartialCredentialsError, raised.CredentialRetrievalError,
            raised.ProfileNotFound, raised.SSOError,
        )  # fmt: skip
        self._arguments = {
            "anon": anonymous,
            "endpoint_url": endpoint or None,
            "skip_instance_cache": True,
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "max_pool_connections": reads,
                "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
                # servers other than AWS seldom have a name per bucket
                **({"s3": {"addressing_style": "path"}} if endpoint else {}),
            },
        }
        self._lock = threading.Lock()
        self._system: Any = None
        self._made_at = 0.0

    # from any thread ----------------------------------------------------------------------------------------------

    def check(self, bucket: Bucket) -> None:
        """Whether the storage lets the bucket be listed just now.

        Raises:
            StoreAwayError: with the reason.
        """
        self._run(self._check(bucket))

    def listing(self, bucket: Bucket, *, recursive: bool = True) -> Iterator[Listed]:
        """Every object below the prefix, page by page, in the storage's order (S3: by the bytes of the key).

        What stands for a folder (a key that ends in ``/``) is passed over.

        Raises:
            StoreAwayError: in the midst, too.
        """
        token: str | None = None
        while True:
            page = self._run(self._page(bucket, token, recursive, PAGE))
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(bucket.prefix)
                if key and not key.endswith("/"):
                    yield Listed(key.encode(), item["Size"], item.get("ETag"))
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or token is None:
                return

    def read(self, bucket: Bucket, key: bytes, *, etag: str | None, limit: int) -> Future[bytes]:
        """Begin to read one object, whole and into memory.

        ``etag``: the content that was listed; ``limit``: the most bytes it may have. The future raises:

        * ImageError: ``missing``, ``changed``, ``file_too_large``, ``unreadable``: this object's own matter.
        * StoreAwayError: the storage as a whole cannot be read just now.
        """
        return asyncio.run_coroutine_threadsafe(self._read(bucket, key, etag, limit), self._loop)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        done = asyncio.run_coroutine_threadsafe(self._told_apart(work), self._loop)
        try:
            return done.result(CHECK_TIMEOUT_S)
        except TimeoutError:
            done.cancel()
            raise StoreAwayError("the object storage does not answer") from None

    # in the event loop --------------------------------------------------------------------------------------------

    async def _session(self) -> tuple[Any, Any]:
        """The file system and its client. The caller holds on to both: when the first goes, its connections close."""
        with self._lock:
            if self._system is None:
                self._system = self._make(**self._arguments)
                self._made_at = time.monotonic()
            system = self._system
        return system, await system.set_session()

    def _forget(self) -> None:
        """The next call makes a session anew: renewed credentials count without a restart."""
        with self._lock:
            if time.monotonic() - self._made_at > SESSION_S:  # many reads fail at once; one new session serves all
                self._system = None

    async def _page(self, bucket: Bucket, token: str | None, recursive: bool, most: int) -> dict[str, Any]:
        asked: dict[str, Any] = {"Bucket": bucket.name, "Prefix": bucket.prefix, "MaxKeys": most}
        if token is not None:
            asked["ContinuationToken"] = token
        if not recursive:
            asked["Delimiter"] = "/"
        _system, client = await self._session()
        found: dict[str, Any] = await client.list_objects_v2(**asked)
        return found

    async def _told_apart(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except _TroubleError as trouble:
            raise StoreAwayError(trouble.reason) from None
        except (*self._told, *self._silent) as error:
            self._forget()
            raise StoreAwayError(self._reason(error)) from None

    async def _check(self, bucket: Bucket) -> None:
        try:
            await self._page(bucket, None, recursive=True, most=1)
        except (*self._told, *self._silent):
            self._forget()  # the credentials may have been renewed meanwhile
            await self._page(bucket, None, recursive=True, most=1)

    async def _read(self, bucket: Bucket, key: bytes, etag: str | None, limit: int) -> bytes:
        for _ in range(2):
            try:
                return await self._get(bucket, key.decode(), etag, limit)
            except _TroubleError as trouble:
                reason = trouble.reason
                # is it this object, or everything? If everything, this raises StoreAwayError
                await self._told_apart(self._check(bucket))
        raise ImageError("unreadable", f"The object cannot be read: {reason}.")

    async def _get(self, bucket: Bucket, key: str, etag: str | None, limit: int) -> bytes:
        asked = {"Bucket": bucket.name, "Key": bucket.prefix + key} | ({"IfMatch": etag} if etag else {})
        try:
            _system, client = await self._session()
            answer = await client.get_object(**asked)
            async with answer["Body"] as body:
                if etag and answer.get("ETag", etag) != etag:  # a server that does not know If-Match
                    raise _changed()
                if answer["ContentLength"] > limit:
                    raise ImageError(
                        "file_too_large",
                        f"The object has {answer['ContentLength']:,} bytes; the limit is {limit:,} "
                        "(MIEN_MAX_FILE_BYTES).",
                    )
                data: bytes = await body.read()
        except self._told as error:
            code = _code(error)
            if code in _GONE:
                raise ImageError("missing", "The object is not there any more.") from None
            if code in _CHANGED:
                raise _changed() from None
            if code == "InvalidObjectState":
                raise ImageError("unreadable", "The object is archived; restore it, then retry the job.") from None
            raise _TroubleError(self._reason(error)) from None
        except self._silent as error:
            raise _TroubleError(self._reason(error)) from None
        if len(data) != answer["ContentLength"]:
            raise _TroubleError("the object storage broke off in its midst")
        return data

    def _reason(self, error: BaseException) -> str:
        """A clause for people. Only codes and class names: what a server answers is not repeated."""
        if isinstance(error, self._told):
            code = _code(error)
            if code == "NoSuchBucket":
                return "there is no such bucket"
            if code in _REFUSED:
                return f"the object storage refuses the server's credentials ({code})"
            return f"the object storage answers with an error ({code})"
        if isinstance(error, self._credentials):
            return f"the server has no usable credentials for it ({type(error).__name__})"
        return f"the object storage does not answer ({type(error).__name__})"


def _changed() -> ImageError:
    return ImageError(
        "changed", "The object was changed after the job had listed it; retry the job to classify it as it is now."
    )


def _code(error: BaseException) -> str:
    """The code of an S3 error, at most 40 letters and digits of it."""
    answer = getattr(error, "response", {}).get("Error", {})
    return "".join(c for c in str(answer.get("Code", "unknown")) if c.isalnum())[:40]
