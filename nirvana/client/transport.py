"""Requests to a Nirvana service: the token, retries, and a problem document as its exception."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TypedDict, Unpack

import httpx

from nirvana import environment
from nirvana import errors as tree
from nirvana.errors import JsonObject, NetworkError, NirvanaError, Problem

RETRIES = 3
_MOST_WAIT_SECONDS = 30.0
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_LIMITS = httpx.Limits(keepalive_expiry=2.0)  # below any server's own, which would close it under a request

# The error that an answer without a code of ours stands for (a proxy's page, say).
_BY_STATUS: dict[int, type[NirvanaError]] = {
    400: tree.Malformed,
    401: tree.Unauthenticated,
    403: tree.Forbidden,
    404: tree.NotFound,
    409: tree.Conflict,
    410: tree.Gone,
    412: tree.PreconditionFailed,
    413: tree.TooLarge,
    415: tree.UnsupportedMedia,
    416: tree.RangeNotSatisfiable,
    422: tree.Invalid,
    428: tree.PreconditionRequired,
    429: tree.QuotaExceeded,
}
_STANDARD_MEMBERS = {"type", "title", "detail", "instance", "code", "errors"}


def error_of(response: httpx.Response) -> NirvanaError:
    """Return the exception that a refused request's answer stands for; its body must have been read."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    fallback = tree.Unavailable if response.status_code >= 500 else NirvanaError
    kind = tree.error_classes().get(str(body.get("code"))) or _BY_STATUS.get(response.status_code, fallback)
    detail = body.get("detail") or body.get("title")
    sentence = str(detail) if detail else f"{response.url} answered {response.status_code}"
    extra = {name: value for name, value in body.items() if name not in _STANDARD_MEMBERS}
    retry_after = response.headers.get("Retry-After")
    if retry_after:
        extra["retry_after"] = retry_after
    return kind(sentence, errors=_problems(body.get("errors")), **extra)


def _problems(items: object) -> list[Problem]:
    objects = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [Problem(*(str(item.get(key, "")) for key in ("pointer", "code", "detail"))) for item in objects]


class Arguments(TypedDict, total=False):
    """The parts of a request beside its method and path, as httpx takes them."""

    params: Mapping[str, str | int]
    json: object
    content: bytes
    data: Mapping[str, str | list[str]]
    files: Mapping[str, tuple[str, bytes | IO[bytes], str]]
    timeout: float
    headers: Mapping[str, str]


class Transport:
    """One service's address with one token; safe to use from several threads."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint = endpoint
        headers = {"User-Agent": f"nirvana/{environment.VERSION}"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(
            base_url=f"{endpoint}/api/v1", headers=headers, timeout=_TIMEOUT, limits=_LIMITS
        )

    def close(self) -> None:
        self._http.close()

    def request(
        self, method: str, path: str, *, retries: int = RETRIES, **arguments: Unpack[Arguments]
    ) -> httpx.Response:
        """Return the answer, read whole; a GET is tried again while the service says 429 or 503.

        Args:
            path: below /api/v1, or from the root where it starts with the endpoint's address.

        Raises:
            NetworkError: the service was not reached.
            NirvanaError: the class of the problem that the service answered.
        """
        for attempt in range(retries + 1):
            response = self._send(method, path, **arguments)
            if response.status_code not in (429, 503) or method != "GET" or attempt == retries:
                break
            time.sleep(wait_seconds(response.headers.get("Retry-After", ""), attempt))
        if response.is_error:
            raise error_of(response)
        return response

    def json(self, method: str, path: str, **arguments: Unpack[Arguments]) -> JsonObject:
        """Return the answer's JSON object."""
        response = self.request(method, path, **arguments)
        try:
            return dict(response.json())
        except (ValueError, TypeError) as error:
            kind = response.headers.get("Content-Type", "no content type")
            raise NetworkError(
                f"{response.url}: found {kind}, expected JSON from a Nirvana service"
            ) from error

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Ask for an answer whose body is still to be read.

        Raises:
            NetworkError: the service was not reached, or the answer broke off.
            NirvanaError: the class of the problem that the service answered.
        """
        self._refuse_offline()
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if response.is_error:
                    response.read()
                    raise error_of(response)
                yield response
        except httpx.HTTPError as error:
            raise self._unreached(error) from error

    def _send(self, method: str, path: str, **arguments: Unpack[Arguments]) -> httpx.Response:
        self._refuse_offline()
        try:
            try:
                return self._http.request(method, path, **arguments)
            except httpx.RemoteProtocolError:
                if method != "GET":
                    raise
                return self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise self._unreached(error) from error
        except httpx.InvalidURL as error:
            raise NetworkError(
                f"NIRVANA_ENDPOINT: found {self.endpoint!r}, expected an address ({error})"
            ) from error

    def _refuse_offline(self) -> None:
        if environment.is_offline():
            raise NetworkError(f"NIRVANA_OFFLINE is set, so that {self.endpoint} is not asked")

    def _unreached(self, error: httpx.HTTPError) -> NetworkError:
        reason = str(error) or type(error).__name__
        return NetworkError(
            f"{self.endpoint} was not reached: {reason}. NIRVANA_ENDPOINT names the service; "
            "`nirvana up` starts one"
        )


def wait_seconds(asked: str, attempt: int) -> float:
    """Return how long to wait before the next try: what the service asked for and up to a tenth more, so that
    those whom it told the same do not come together; else longer from try to try.

    Args:
        asked: the header Retry-After, or "".
    """
    wait = float(asked) * random.uniform(1.0, 1.1) if asked.isdecimal() else with_jitter(0.5 * 2**attempt)
    return min(wait, _MOST_WAIT_SECONDS)


def with_jitter(seconds: float) -> float:
    """Return between half of a wait and all of it, so that those who failed together do not come together."""
    return seconds * random.uniform(0.5, 1.0)
