"""The OpenAPI document: FastAPI's own, made to say what every operation really answers; and its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from fastapi import APIRouter, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.routing import RouteContext, iter_route_contexts

from app.db import Json
from app.dependencies import check_request
from app.limits.rates import ACTIONS
from app.pages import render
from app.schemas import ProblemDocument, problems

pages = APIRouter()
_BOUNDS = ("type", "minimum", "maximum", "minLength", "maxLength", "pattern", "enum", "default")
Call = Callable[..., object] | None
READING = ("get_", "list_", "stream_", "cite_", "diff_")  # what operations are called that only read
METHODS = ("get", "put", "post", "patch", "delete")
_REQUEST_ID = {"X-Request-Id": "of this request, for a report; one that you send is kept"}
_HEADERS = {
    "401": {"WWW-Authenticate": "how to sign in (RFC 6750)"},
    "416": {"Content-Range": "size of the file"},
    "429": {"Retry-After": "seconds to wait"},
    "503": {"Retry-After": "seconds to wait"},
    "507": {"Retry-After": "seconds to wait"},
}


def describe(app: FastAPI) -> None:
    """Let the app serve this document."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def operations(document: Json) -> Iterator[Json]:
    """Yield every operation of a document."""
    for path in document["paths"].values():
        yield from (path[method] for method in METHODS if method in path)


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """Return the methods that a path answers, whichever routes answer them."""
    found = {"HEAD"}
    for route in iter_route_contexts(app.routes):
        if getattr(route, "path_regex", None) and route.path_regex.match(path):
            found |= route.methods or {"GET"}
    return sorted(found if "GET" in found else found - {"HEAD"})


@pages.get("/docs", response_class=HTMLResponse)
def reference_page(request: Request) -> HTMLResponse:
    """Every operation with its parameters, an example of its body, and what it answers; without a script."""
    document = request.app.openapi()
    tags: dict[str, list[Json]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            more = {"path": path, "method": method.upper(), "body": _example(operation, document)}
            parameters = [_described(parameter) for parameter in operation.get("parameters", [])]
            shown = {"description": "", "parameters": parameters} | more
            tags.setdefault(operation["tags"][0], []).append(operation | shown)
    return render(request, "reference.html", {"tags": tags, "count": sum(map(len, tags.values()))})


def _described(parameter: Json) -> Json:
    """Return a parameter with its description and the bounds of its schema."""
    choices = [parameter["schema"], *parameter["schema"].get("anyOf", [])]
    bounds = {key: value for choice in choices for key, value in choice.items() if key in _BOUNDS}
    shape = ", ".join(f"{key} {value}" for key, value in bounds.items() if value != "null")
    return {"description": ""} | parameter | {"shape": shape}


def _example(operation: Json, document: Json) -> str:
    """Return an example of the operation's body, as text; "" where it has none."""
    content = operation.get("requestBody", {}).get("content", {})
    for media_type in content.values():
        if "example" in media_type:
            return json.dumps(media_type["example"], indent=2)
        for schema in [media_type["schema"], *media_type["schema"].get("oneOf", [])]:
            name = schema.get("$ref", "").rpartition("/")[2]
            for example in document["components"]["schemas"].get(name, schema).get("examples", []):
                return json.dumps(example, indent=2)
    return ""


def _document(app: FastAPI) -> Json:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs") | {"ProblemDocument": problem}
    bearer = {"type": "http", "scheme": "bearer", "description": "a token of POST /tokens, nvn_..."}
    document["components"]["securitySchemes"] = {"token": bearer}
    routes = {route.operation_id: route for route in iter_route_contexts(app.routes) if _is_shown(route)}
    for operation in operations(document):
        _complete(operation, routes[operation["operationId"]])
    return document


def _is_shown(route: RouteContext) -> bool:
    return bool(getattr(route, "operation_id", None) and route.include_in_schema)


def _complete(operation: Json, route: RouteContext) -> None:
    """Add the errors that follow from what an operation depends on, and the headers of every answer."""
    responses = operation["responses"]
    calls = set(_calls(route.dependant))
    optional: list[Json] = [{}, {"token": []}] if check_request in calls else []
    operation["security"] = [{"token": []}] if "401" in responses else optional
    for status, response in problems(*_errors(operation, calls, route.path or "")).items():
        if str(status) not in responses or status == 422:
            responses[str(status)] = response
    for status, response in responses.items():
        named = _REQUEST_ID | _HEADERS.get(status, {}) | _success_headers(operation, status)
        shown = {name: {"description": text, "schema": {"type": "string"}} for name, text in named.items()}
        response["headers"] = shown | response.get("headers", {})
    operation["responses"] = dict(sorted(responses.items()))


def _errors(operation: Json, calls: set[Call], path: str) -> Iterator[int]:
    """Yield the statuses of errors that follow from an operation's body and from what it depends on."""
    is_named = "{ticket" in path or "{task" in path
    if is_named and not operation["operationId"].startswith(READING):
        yield 405  # `x/yank` where a ticket's name should be is the ticket `yank` of x
    yield 422  # an unknown parameter
    if "requestBody" in operation:
        yield from (400, 413)
    if check_request in calls:  # it asks the database who sends it
        yield from (401, 503)
        if ACTIONS.get(operation["operationId"], "any") is not None:
            yield 429
        if not operation["operationId"].startswith(READING):
            yield 507


def _calls(dependant: Dependant) -> Iterator[Call]:
    yield dependant.call
    for part in dependant.dependencies:
        yield from _calls(part)


def _success_headers(operation: Json, status: str) -> dict[str, str]:
    responses = operation["responses"]
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    headers = {}
    if status == "200" and "cursor" in names:
        headers["Link"] = 'the next page: <...>; rel="next"'
    if status in ("200", "206", "304") and "304" in responses:
        headers["ETag"] = "of the answer, for If-None-Match"
    if status in ("201", "202"):
        headers["Location"] = "where it is"
    return headers
