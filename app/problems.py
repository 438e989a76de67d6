"""Errors as `application/problem+json` (RFC 9457): the one place that knows both errors and HTTP."""

from __future__ import annotations

import json
import logging
from asyncio import sleep
from dataclasses import asdict, dataclass, field
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.db import Json
from app.openapi import allowed_methods
from app.pages import render, wants_page
from nirvana import errors
from nirvana.errors import (
    Invalid,
    Malformed,
    NirvanaError,
    Problem,
    RateLimited,
    StorageFull,
    TooLarge,
    Unavailable,
)

log = logging.getLogger("nirvana.app")
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
STATUS: dict[type[NirvanaError], int] = {
    errors.NotFound: 404,
    errors.Gone: 410,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.PreconditionRequired: 428,
    errors.Malformed: 400,
    errors.Invalid: 422,
    errors.UnsupportedMedia: 415,
    errors.TooLarge: 413,
    errors.RangeNotSatisfiable: 416,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.QuotaExceeded: 429,
    errors.Unavailable: 503,
    errors.StorageFull: 507,
}


@dataclass(frozen=True)
class Refusal:
    """The answer to a request that failed.

    Attributes:
        problems: each thing that is wrong, and where.
        extra: further members of the document.
        headers: besides those that the status asks for.
    """

    status: int
    code: str
    title: str
    detail: str
    problems: tuple[Problem, ...] = ()
    extra: Json = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def respond(self, request: Request) -> Response:
        """Return the problem document, or its page for those who read HTML."""
        content = {
            **self.extra,
            "type": f"urn:nirvana:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": request.url.path,
            "code": self.code,
            "request_id": getattr(request.state, "request_id", None),
            "errors": [asdict(problem) for problem in self.problems],
        }
        text = json.dumps(content, ensure_ascii=False)  # it may quote what UTF-8 does not have
        content = json.loads(text.encode("utf-8", "replace"))
        headers = self._status_headers() | self.headers
        if wants_page(request):
            return render(request, "error.html", {"problem": content}, self.status, headers)
        return JSONResponse(content, self.status, headers=headers, media_type=MEDIA_TYPE)

    def _status_headers(self) -> dict[str, str]:
        if self.status == 401:
            return {"WWW-Authenticate": 'Bearer realm="nirvana"'}
        if self.status == 403 and "scope" in self.extra:
            scope = self.extra["scope"]
            return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
        if self.status == 416 and "size" in self.extra:
            return {"Content-Range": f"bytes */{self.extra['size']}"}
        if self.status in (429, 503, 507):
            return {"Retry-After": str(self.extra.get("retry_after_seconds", RETRY_AFTER_SECONDS))}
        return {}


def status_of(error: NirvanaError) -> int:
    """Return the HTTP status of an error: that of the nearest class above it; 500 where there is none."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem_response(request: Request, error: NirvanaError) -> Response:
    """Return the problem document of an error."""
    refusal = Refusal(status_of(error), error.code, error.title, error.detail, error.errors, error.extra)
    return refusal.respond(request)


def internal_error(request: Request) -> Response:
    """Return the answer to an error of ours: it says nothing but where to ask."""
    detail = "The service failed. Quote the request_id when you report this."
    return Refusal(500, "internal", "Internal error", detail).respond(request)


def validation_error(error: RequestValidationError | ValidationError) -> NirvanaError:
    """Return FastAPI's or pydantic's own complaint about a request as an error of our tree."""
    for item in error.errors():
        if item["type"] == "json_invalid":
            return unreadable(f"{item['ctx']['error']} at character {item['loc'][-1]}")
    problems = tuple(_problem(item) for item in error.errors())
    first = problems[0]
    return Invalid(f"{first.pointer}: {first.detail}", errors=problems)


def unreadable(reason: str) -> Malformed:
    """Return the error of a body that is no JSON that can be read."""
    return Malformed("The body is not JSON.", errors=[Problem("", "json-invalid", reason)])


def _problem(item: ErrorDetails) -> Problem:
    place = [str(part).replace("~", "~0").replace("/", "~1") for part in item["loc"]]
    pointer = "/" + "/".join(place[1:] if place[0] == "body" else place)
    return Problem(pointer, str(item["type"]).replace("_", "-"), str(item["msg"]))


def database_error(error: OperationalError | PoolTimeout) -> NirvanaError:
    """Return the meaning of a failing database to a caller."""
    text = str(getattr(error, "orig", error)).lower()
    if "disk is full" in text or "no space left" in text:
        return StorageFull("The database's disk is full; nothing was written.")
    return Unavailable("The database is busy or cannot be reached; nothing was written. Try again.")


def install(app: FastAPI, *, max_body_bytes: int, refusal_seconds: float) -> None:
    """Answer every exception of `app` with a problem document.

    Args:
        refusal_seconds: that a stranger waits for the answer that there is no room: who asks again as soon as
            he is refused would keep the service busy with refusing him.
    """

    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, NirvanaError)
        if isinstance(error, RateLimited | Unavailable) and getattr(request.state, "sender", None) is None:
            await sleep(refusal_seconds)
        return problem_response(request, error)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(request, validation_error(error))

    async def on_database(request: Request, error: Exception) -> Response:
        assert isinstance(error, OperationalError | PoolTimeout)
        return problem_response(request, database_error(error))

    async def on_data(request: Request, error: Exception) -> Response:
        log.warning("the database refused a value: %s", getattr(error, "orig", error))
        return problem_response(request, Invalid("The request has a value that no database can keep."))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _http_problem(request, error, max_body_bytes)

    app.add_exception_handler(NirvanaError, on_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(OperationalError, on_database)
    app.add_exception_handler(PoolTimeout, on_database)
    app.add_exception_handler(DataError, on_data)
    app.add_exception_handler(HTTPException, on_http)


def _http_problem(request: Request, error: HTTPException, max_body_bytes: int) -> Response:
    if error.status_code == 413:
        detail = f"The body is larger than this route takes ({max_body_bytes} bytes)."
        return problem_response(request, TooLarge(detail, limit_bytes=max_body_bytes))
    if error.status_code == 400:  # too deep, no UTF-8, or a number of thousands of digits
        return problem_response(request, unreadable(str(error.detail)))
    title = HTTPStatus(error.status_code).phrase
    code = title.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the router names the methods of one route, and a path may have several
        headers["Allow"] = ", ".join(allowed_methods(request.app, request.url.path))
    refusal = Refusal(error.status_code, code, title, detail, headers=headers)
    return refusal.respond(request)
