"""Bodies of architectures."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.db import Json
from app.schemas import ResponseModel, example

_DIGEST = "sha256:" + "3d" * 32
_SUMMARY: Json = {
    "name": "lenet-300-100",
    "digest": _DIGEST,
    "family": "lenet",
    "input": [1, 8, 8],
    "parameters": 50610,
    "prunable": 50200,
    "flops": 100400,
}
GRAPH_EXAMPLE: Json = {
    "name": "tiny",
    "input": [4],
    "nodes": [{"name": "fc1", "op": "linear", "in": 4, "out": 2}],
}


class ArchitectureSummary(ResponseModel):
    """A graph that published tickets were cut from."""

    model_config = ResponseModel.model_config | example(**_SUMMARY)
    name: str
    digest: str
    family: str
    input: Annotated[list[int], Field(validation_alias="input_shape")]
    parameters: int
    prunable: Annotated[int, Field(description="weights that a mask may cover")]
    flops: Annotated[int, Field(description="forward, one example, dense")]


class ArchitectureResponse(ArchitectureSummary):
    """An architecture with its graph."""

    model_config = ResponseModel.model_config | example(**_SUMMARY, graph=GRAPH_EXAMPLE)
    graph: Json


class ArchitecturePage(ResponseModel):
    """One page of architectures."""

    model_config = ResponseModel.model_config | example(items=[_SUMMARY], next_cursor=None)
    items: list[ArchitectureSummary]
    next_cursor: str | None


class ArchitectureCheck(ResponseModel):
    """Shapes and costs of an architecture, computed from its graph."""

    model_config = ResponseModel.model_config | example(
        name="tiny",
        digest=_DIGEST,
        family="tiny",
        parameters={"fc1.weight": [2, 4], "fc1.bias": [2]},
        prunable=["fc1.weight"],
        output_shape=[2],
        total=8,
        flops=16,
    )
    name: str
    digest: str
    family: str
    parameters: dict[str, list[int]]
    prunable: list[str]
    output_shape: list[int]
    total: Annotated[int, Field(description="weights that a mask may cover")]
    flops: int
