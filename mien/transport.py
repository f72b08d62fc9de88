"""How the client speaks HTTP: one session, the key in a header, the server's errors raised as the same errors here."""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import ValidationError

from mien import __version__, errors, wire

M = TypeVar("M", bound=wire.Wire)
T = TypeVar("T", bound="Transport")

TIMEOUT_S = 30.0
RETRIES = 4
"""Times that one request is repeated at most."""
LONGEST_PAUSE_S = 60.0
"""A server that wants a longer pause (a quota of the day) is not waited for: its error is raised at once."""
_FIRST_PAUSE_S = 0.2
_REFUSED = (429, 503)
"""The request was not carried out: it may be repeated."""
_REPEATABLE = ("GET", "HEAD", "PUT", "DELETE")

_BY_STATUS: dict[int, type[errors.MienError]] = {
    400: errors.InvalidRequestError,
    401: errors.UnauthorizedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    413: errors.TooLargeError,
    422: errors.UnprocessableError,
    503: errors.UnavailableError,
    504: errors.DeadlineError,
    507: errors.NoSpaceError,
}


class Transport:
    """The base of :class:`mien.client.Client`: what every part of the API goes through.

    Args:
        url: the front end's address, as ``http://127.0.0.1:8616``.
        key: an API key or the local token; None where the front end is open (loopback without keys).
        timeout_s: seconds to wait for an answer to begin.
        retries: how often a request that was refused for now (429, 503) or got no answer is repeated, with pauses as
            the server's Retry-After says, else growing ones. Only what may be repeated is, and a server that never
            answered is not waited for.
    """

    def __init__(
        self, url: str, key: str | None = None, *, timeout_s: float = TIMEOUT_S, retries: int = RETRIES
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.SettingsError(f"{url!r} is not the address of a Mien; write it like http://127.0.0.1:8616.")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self.retries = retries
        self._met = False
        self._key = key
        self._http = requests.Session()
        self._http.headers["User-Agent"] = f"mien/{__version__}"
        # an explicit hook: a ~/.netrc entry would otherwise replace the Authorization header
        self._http.auth = _bearer(key)
        if _is_loopback(parts.hostname):
            self._http.trust_env = False  # a proxy has no business between this machine and itself
            self._http.headers["Accept-Encoding"] = "identity"  # packing costs more than this way

    def twin(self: T) -> T:
        """Another client of the same Mien, for another thread."""
        return type(self)(self.url, self._key, timeout_s=self.timeout_s)

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

    def __enter__(self: T) -> T:
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
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout_s: float | None = None,
    ) -> requests.Response:
        """The answer to a request, repeated where that is right.

        Raises:
            MienError: what the server answered; UnavailableError: it did not.
        """
        again = data is None or isinstance(data, bytes | str)
        safe = again and (method in _REPEATABLE or "Idempotency-Key" in (headers or {}))
        for attempt in range(self.retries + 1):
            pause = _FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 - apart, not secret
            try:
                answer = self._ask_once(
                    method, path, params=params, json=json, data=data, headers=headers, stream=stream,
                    timeout_s=timeout_s,
                )  # fmt: skip
            except errors.UnavailableError as error:
                if attempt == self.retries or not safe or not self._met or error.code != "no_server":
                    raise
                time.sleep(pause)
                continue
            self._met = True
            if answer.status_code in _REFUSED and attempt < self.retries and (safe or answer.status_code == 429):
                asked = _pause_asked(answer)
                if again and asked is not None and asked <= LONGEST_PAUSE_S:
                    answer.close()
                    time.sleep(max(asked, pause))
                    continue
            break
        if answer.status_code >= requests.codes.multiple_choices and answer.status_code != requests.codes.not_modified:
            raise _rebuilt(answer, self.url)
        return answer

    def _ask_once(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None,
        json: object,
        data: Any,
        headers: Mapping[str, str] | None,
        stream: bool,
        timeout_s: float | None,
    ) -> requests.Response:
        try:
            return self._http.request(
                method,
                f"{self.url}/api/v1{path}",
                params={name: value for name, value in (params or {}).items() if value is not None},
                json=json,
                data=data,
                headers={"Accept": "application/json, */*", **(headers or {})},
                stream=stream,
                timeout=(5, timeout_s or self.timeout_s),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise _nobody(self.url, error) from None

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


def _pause_asked(answer: requests.Response) -> float | None:
    """Seconds in Retry-After; None where the server gives none (then it is no refusal for now, or not Mien's)."""
    given = answer.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() else None


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


def path_part(job_id: str) -> str:
    """A job's id, safe in an address."""
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
    if answer.status_code == requests.codes.too_many_requests:
        pause = int(_pause_asked(answer) or 0)
        return errors.LimitError(problem.detail, code=problem.code, limit=problem.code, retry_after_s=pause)
    kind = _BY_STATUS.get(answer.status_code, errors.MienError)
    if kind is errors.UnprocessableError and problem.field:
        kind = {"source": errors.SourceError, "model": errors.ModelError}.get(problem.field.split(".")[0], kind)
    return kind(problem.detail, code=problem.code, field=problem.field)
