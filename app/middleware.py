"""The layer around every request: an id, a log line, metrics, security headers, an answer to any error."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from types import SimpleNamespace

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import internal_error, problem_response
from app.settings import Settings
from app.telemetry import Metrics
from nirvana.errors import Unavailable

log = logging.getLogger("nirvana.app")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UPLOADS = ("/api/v1/tickets", "/api/v1/tickets:lint", "/api/v1/tasks")
CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class RequestMiddleware:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, metrics: Metrics, settings: Settings) -> None:
        self.app, self.metrics = app, metrics
        self.max_body_bytes, self.body_seconds = settings.max_body_bytes, settings.body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the server's own still says what was asked
            scope["state"]["is_head"] = True
            receive, send = _headers_alone(receive, send)
        began, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                own = {"X-Request-Id": request_id, **scope["state"].get("rate_limit", {})}
                for name, value in (own | SECURITY_HEADERS).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, self._capped(scope, receive), answer)
        except ClientDisconnect:
            log.info("client went away", extra=_fields(scope, request_id))
        except Exception:
            log.exception("request failed", extra=_fields(scope, request_id))
            if status:
                raise
            await internal_error(Request(scope))(scope, receive, answer)
        finally:
            self._note(scope, request_id, status, time.perf_counter() - began)

    def _capped(self, scope: Scope, receive: Receive) -> Receive:
        """Return `receive` with a cap on the body and its time; those of UPLOADS have caps of their own."""
        received, is_whole = 0, False
        until = time.monotonic() + self.body_seconds

        async def next_message() -> Message:
            nonlocal received, is_whole
            if is_whole:  # what comes now is the end of the connection
                return await receive()
            try:
                async with asyncio.timeout(max(0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The body took more than {self.body_seconds:g} s") from None
            received, is_whole = received + len(message.get("body", b"")), not message.get("more_body")
            if received > self.max_body_bytes:
                raise HTTPException(413)
            return message

        return receive if scope["path"] in UPLOADS else next_message

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = route_of(scope)
        self.metrics.requests.labels(_method(scope), route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        extra = _fields(scope, request_id) | {"status": status, "seconds": round(seconds, 4)}
        level = logging.DEBUG if route in ("/healthz", "/readyz", "/metrics") else logging.INFO
        log.log(level, "request", extra=extra)


class RoomGate:
    """The layer that refuses strangers what there is no room for, before their request costs what any does:
    some thousands of refusals would else keep a process from answering others.

    Args:
        checks: path of a POST -> what raises Unavailable when there is no room.
        refusal_seconds: as in `app.problems.install`.
    """

    def __init__(
        self, app: ASGIApp, checks: Mapping[str, Callable[[], None]], refusal_seconds: float
    ) -> None:
        self.app, self.checks, self.refusal_seconds = app, checks, refusal_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        check = self.checks.get(scope["path"]) if is_post else None
        if check is None or _is_known(scope):
            await self.app(scope, receive, send)
            return
        try:
            check()
        except Unavailable as error:
            scope["route"] = SimpleNamespace(path=scope["path"])  # for the metrics
            await asyncio.sleep(self.refusal_seconds)
            await problem_response(Request(scope), error)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_known(scope: Scope) -> bool:
    """Tell whether a request shows a token or a session, right or wrong."""
    return any(name in (b"authorization", b"cookie") for name, _ in scope["headers"])


def _headers_alone(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Send the headers of a GET alone; a stream is told that its reader has gone."""
    is_sent = False

    async def next_message() -> Message:
        return {"type": "http.disconnect"} if is_sent else await receive()

    async def send_headers(message: Message) -> None:
        nonlocal is_sent
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_sent:
            is_sent = True
            await send({"type": "http.response.body", "body": b""})

    return next_message, send_headers


def route_of(scope: Scope) -> str:
    """Return the pattern that a request's path matched, so that metrics do not grow with the paths."""
    pattern = getattr(scope.get("route"), "path", None)
    if pattern is None:
        return "unmatched"
    path: str = scope["path"]
    prefix = "/api/v1" if path.startswith("/api/v1") and not pattern.startswith("/api/v1") else ""
    return prefix + str(pattern)


def _method(scope: Scope) -> str:
    method: str = "HEAD" if scope["state"].get("is_head") else scope["method"]
    return method if method in METHODS else "other"


def _request_id(scope: Scope) -> str:
    """Return the caller's own id where it looks like one, else a new one."""
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    own: str = sent.decode("latin-1")
    return own if _REQUEST_ID.fullmatch(own) else uuid.uuid4().hex


def _fields(scope: Scope, request_id: str) -> dict[str, object]:
    client = scope.get("client")
    return {
        "request_id": request_id,
        "method": _method(scope),
        "path": scope["path"],
        "client": client[0] if client else None,
    }
