"""How the client speaks HTTP: one session, the key in a header, the server's errors raised as the same errors here."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import ValidationError

from mien import __version__, errors, wire

M = TypeVar("M", bound=wire.Wire)
T = TypeVar("T", bound="Transport")

TIMEOUT_S = 30.0

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
}


class Transport:
    """The base of :class:`mien.client.Client`: what every part of the API goes through.

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
        try:
            answer = self._http.request(
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
    kind = _BY_STATUS.get(answer.status_code, errors.MienError)
    if kind is errors.UnprocessableError and problem.field:
        kind = {"source": errors.SourceError, "model": errors.ModelError}.get(problem.field.split(".")[0], kind)
    return kind(problem.detail, code=problem.code, field=problem.field)
