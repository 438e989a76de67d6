"""The base classes of request and response bodies, and the OpenAPI document made of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, PlainSerializer

from app.db import Json

METHODS = ("get", "put", "post", "patch", "delete")
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}


def _to_rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _refuse_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character, which no database keeps")
    text.encode()  # a lone surrogate is no text
    return text


Instant = Annotated[AwareDatetime, PlainSerializer(_to_rfc3339, when_used="json")]
"""A time with its zone, written in UTC with a Z."""

Plain = Annotated[str, AfterValidator(_refuse_nul)]
"""Text that every database can keep."""


class RequestModel(BaseModel):
    """A request body: a field that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResponseModel(BaseModel):
    """A response body, filled from a row."""

    model_config = ConfigDict(from_attributes=True)


def example(**fields: object) -> ConfigDict:
    """Return the model configuration that adds an example to the schema."""
    extra: Json = {"examples": [fields]}
    return ConfigDict(json_schema_extra=extra)


PROBLEM_EXAMPLE = {
    "type": "urn:nirvana:problem:not-found",
    "title": "Not found",
    "status": 404,
    "detail": "There is no ticket 'ada/lenet'.",
    "instance": "/api/v1/tickets/ada/lenet",
    "code": "not-found",
    "request_id": "4f2a6f6c7b1d4e0a9d0c3b5a7e8f9012",
    "errors": [],
}


class FieldProblem(BaseModel):
    """One thing that is wrong, and where."""

    pointer: str
    detail: str
    code: str


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    model_config = example(**PROBLEM_EXAMPLE)

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str | None
    errors: list[FieldProblem]


def problems(*statuses: int) -> dict[int | str, Json]:
    """Return the OpenAPI responses of errors."""
    return {status: {"description": "Problem", "content": PROBLEM} for status in statuses}


def binary(media_type: str, description: str) -> Json:
    """Return the OpenAPI response of a file."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}, "example": "(bytes)"}}
    return {"description": description, "content": content}


def describe(app: FastAPI) -> None:
    """Let the app serve FastAPI's own document, with our errors and the bearer token."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> Json:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs") | {"ProblemDocument": problem}
    bearer = {"type": "http", "scheme": "bearer", "description": "a token of POST /tokens, nvn_..."}
    document["components"]["securitySchemes"] = {"token": bearer}
    for operation in operations(document):
        _complete(operation)
    return document


def operations(document: Json) -> Iterator[Json]:
    """Yield every operation of a document."""
    for path in document["paths"].values():
        yield from (path[method] for method in METHODS if method in path)


def _complete(operation: Json) -> None:
    """Make every error a problem, and a token needed where an answer may be 401."""
    responses = operation["responses"]
    if "422" in responses:
        responses["422"] = {"description": "Problem", "content": PROBLEM}
    responses["default"] = {"description": "Problem", "content": PROBLEM}
    operation["security"] = [{"token": []}] if "401" in responses else [{}, {"token": []}]
