"""REST routes of architectures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from app.architectures.names import check_name
from app.architectures.schemas import (
    GRAPH_EXAMPLE,
    ArchitectureCheck,
    ArchitecturePage,
    ArchitectureResponse,
    ArchitectureSummary,
)
from app.architectures.service import get_architecture as get_row
from app.architectures.service import list_architectures as list_rows
from app.db import Json
from app.dependencies import Name, PagingDep, Reader, SessionDep, SettingsDep
from app.schemas import problems
from nirvana.networks.architecture import Architecture

router = APIRouter(tags=["architectures"])


@router.get("/architectures", operation_id="list_architectures", responses=problems(422))
def list_architectures(session: SessionDep, reader: Reader, paging: PagingDep) -> ArchitecturePage:
    """Architectures of the tickets that you may see, by name."""
    page = list_rows(session, reader, limit=paging.limit, cursor=paging.cursor)
    paging.link(next=page.next_cursor)
    items = [ArchitectureSummary.model_validate(row) for row in page.rows]
    return ArchitecturePage(items=items, next_cursor=page.next_cursor)


@router.get("/architectures/{architecture:path}", operation_id="get_architecture", responses=problems(404))
def get_architecture(architecture: Name, session: SessionDep, reader: Reader) -> ArchitectureResponse:
    """An architecture by its name (the oldest of that name) or its digest, with its graph. A name without an
    owner's before it is the zoo's, and so is its graph."""
    return ArchitectureResponse.model_validate(get_row(session, architecture, reader))


@router.post("/architectures:check", operation_id="check_architecture", responses=problems(422))
def check_architecture(
    graph: Annotated[Json, Body(examples=[GRAPH_EXAMPLE])], settings: SettingsDep
) -> ArchitectureCheck:
    """Check a graph and compute its shapes and costs; nothing is stored."""
    checked = Architecture.from_manifest(graph, max_parameters=settings.max_parameters)
    check_name(checked.name, "/name")
    return ArchitectureCheck(
        name=checked.name,
        digest=checked.digest,
        family=checked.family,
        parameters={name: list(shape) for name, shape in checked.parameters.items()},
        prunable=list(checked.prunable),
        output_shape=list(checked.output_shape),
        total=checked.prunable_total,
        flops=checked.flops(),
    )
