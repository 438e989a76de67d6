"""Errors as `application/problem+json` (RFC 9457): the one place that knows both errors and HTTP."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.pages import render, wants_page
from nirvana import errors
from nirvana.errors import Invalid, Malformed, NirvanaError, Problem, StorageFull, TooLarge, Unavailable

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


def status_of(error: NirvanaError) -> int:
    """The HTTP status of an error: that of the nearest class above it; 500 where there is none."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem_response(request: Request, error: NirvanaError) -> Response:
    """The problem document of an error."""
    status = status_of(error)
    return _respond(request, status, error.code, error.title, error.detail, error.errors, error.extra)


def internal_error(request: Request) -> Response:
    """The answer to an error of ours: it says nothing but where to ask."""
    detail = "The service failed. Quote the request_id when you report this."
    return _respond(request, 500, "internal", "Internal error", detail)


def _respond(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    problems: tuple[Problem, ...] = (),
    extra: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    content = {
        **(extra or {}),
        "type": f"urn:nirvana:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "request_id": getattr(request.state, "request_id", None),
        "errors": [asdict(problem) for problem in problems],
    }
    headers = _extra_headers(status, extra or {}) | (headers or {})
    if wants_page(request):
        return render(request, "error.html", {"problem": content}, status, headers)
    return JSONResponse(content, status, headers=headers, media_type=MEDIA_TYPE)


def _extra_headers(status: int, extra: dict[str, Any]) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="nirvana"'}
    if status == 403 and "scope" in extra:
        return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{extra["scope"]}"'}
    if status == 416 and "size" in extra:
        return {"Content-Range": f"bytes */{extra['size']}"}
    if status in (429, 503, 507):
        return {"Retry-After": str(extra.get("retry_after_seconds", RETRY_AFTER_SECONDS))}
    return {}


def validation_error(error: RequestValidationError) -> NirvanaError:
    """FastAPI's own complaint about a request, as an error of our tree."""
    problems = tuple(_problem(item) for item in error.errors())
    if any(item["type"] == "json_invalid" for item in error.errors()):
        return Malformed("The body is not JSON.", errors=problems)
    first = problems[0]
    return Invalid(f"{first.pointer}: {first.detail}", errors=problems)


def _problem(item: Any) -> Problem:
    place = [str(part).replace("~", "~0").replace("/", "~1") for part in item["loc"]]
    pointer = "/" + "/".join(place[1:] if place[0] == "body" else place)
    return Problem(pointer, str(item["type"]).replace("_", "-"), str(item["msg"]))


def database_error(error: OperationalError | PoolTimeout) -> NirvanaError:
    """What a failing database means to a caller."""
    text = str(getattr(error, "orig", error)).lower()
    if "disk is full" in text or "no space left" in text:
        return StorageFull("The database's disk is full; nothing was written.")
    return Unavailable("The database is busy or cannot be reached; nothing was written. Try again.")


def install(app: FastAPI, *, max_body_bytes: int) -> None:
    """Answer every exception of `app` with a problem document."""

    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, NirvanaError)
        return problem_response(request, error)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(request, validation_error(error))

    async def on_database(request: Request, error: Exception) -> Response:
        assert isinstance(error, OperationalError | PoolTimeout)
        return problem_response(request, database_error(error))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _http_problem(request, error, max_body_bytes)

    app.add_exception_handler(NirvanaError, on_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(OperationalError, on_database)
    app.add_exception_handler(PoolTimeout, on_database)
    app.add_exception_handler(HTTPException, on_http)


def _http_problem(request: Request, error: HTTPException, max_body_bytes: int) -> Response:
    if error.status_code == 413:
        detail = f"The body is larger than this route takes ({max_body_bytes} bytes)."
        return problem_response(request, TooLarge(detail, limit_bytes=max_body_bytes))
    title = HTTPStatus(error.status_code).phrase
    code = title.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
    headers = dict(error.headers or {})
    return _respond(request, error.status_code, code, title, detail, headers=headers)
