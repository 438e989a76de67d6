"""The OpenAPI document: FastAPI's own, with our errors and the bearer token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.schemas import ProblemDocument

METHODS = ("get", "put", "post", "patch", "delete")
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}


def describe(app: FastAPI) -> None:
    """Let the app serve this document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
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


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every operation of a document."""
    for path in document["paths"].values():
        yield from (path[method] for method in METHODS if method in path)


def _complete(operation: dict[str, Any]) -> None:
    """Errors are problems, everywhere; what answers 401 takes a token."""
    responses = operation["responses"]
    if "422" in responses:
        responses["422"] = {"description": "Problem", "content": PROBLEM}
    responses["default"] = {"description": "Problem", "content": PROBLEM}
    operation["security"] = [{"token": []}] if "401" in responses else [{}, {"token": []}]
