"""The base classes of request and response bodies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, PlainSerializer

from app.db import Json

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
