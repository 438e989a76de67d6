"""REST routes that read tickets."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.dependencies import Reader, SessionDep, SettingsDep, StorageDep
from app.evaluations.schemas import show_evaluation
from app.evaluations.service import list_evaluations
from app.lists import DEFAULT_LIMIT, Cursor, Limit, link_next
from app.schemas import binary, problems
from app.tickets import reference as _reference  # registers the path convertor
from app.tickets.files import export_file, matches, ticket_file
from app.tickets.models import Ticket
from app.tickets.query import read_facets, read_search
from app.tickets.reference import TicketReference
from app.tickets.schemas import LayerPage, LayerShown, Lineage, TicketPage, TicketShown, summarise, summary_of
from app.tickets.search import Search, list_ancestors, list_children, search_tickets
from app.tickets.service import etag, get_ticket
from nirvana.ticket import MEDIA_TYPE

router = APIRouter(tags=["tickets"])
SHOWN_EVALUATIONS = 25
TICKET = "/tickets/{ticket:ticket}"


@router.get("/tickets", operation_id="list_tickets", responses=problems(422))
def list_tickets(
    request: Request,
    response: Response,
    session: SessionDep,
    reader: Reader,
    search: Annotated[Search, Depends(read_search)],
    facets: Annotated[tuple[str, ...], Depends(read_facets)],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> TicketPage:
    """Search listings. Accuracies and verdicts are those measured here; a claim is never searched."""
    page = search_tickets(session, search, reader=reader, limit=limit, cursor=cursor, facets=facets)
    link_next(request, response, page.next_cursor)
    items = [summarise(row) for row in page.rows]
    return TicketPage(items=items, next_cursor=page.next_cursor, total=page.total, facets=page.facets)


@router.get(f"{TICKET}/file", operation_id="get_ticket_file", response_class=Response, responses={
    200: binary(MEDIA_TYPE, "The file; its ETag is the ticket's digest."),
    206: binary(MEDIA_TYPE, "The range that was asked for."),
    304: {"description": "Not modified"},
    **problems(404, 416),
})  # fmt: skip
@router.head(f"{TICKET}/file", include_in_schema=False)
def get_file(
    request: Request, ticket: TicketReference, session: SessionDep, reader: Reader, storage: StorageDep
) -> Response:
    """The .ticket file: If-None-Match, Range and If-Range work."""
    return ticket_file(request, storage, get_ticket(session, ticket, reader))


@router.get(f"{TICKET}/export", operation_id="get_ticket_export", response_class=Response, responses={
    200: binary("application/octet-stream", "The ticket in that form."),
    304: {"description": "Not modified"},
    **problems(404, 416, 422),
})  # fmt: skip
def get_export(
    request: Request,
    ticket: TicketReference,
    format: Literal["safetensors", "numpy", "csr", "onnx", "script"],
    session: SessionDep,
    reader: Reader,
    storage: StorageDep,
    settings: SettingsDep,
) -> Response:
    """The ticket as masked safetensors, as a NumPy archive, as compressed sparse rows for SciPy, as an ONNX
    model, or as a Python script that trains it."""
    return export_file(request, storage, settings, get_ticket(session, ticket, reader), format)


@router.get(f"{TICKET}/layers", operation_id="list_ticket_layers", responses=problems(404))
def list_layers(ticket: TicketReference, session: SessionDep, reader: Reader) -> LayerPage:
    """What is kept of each prunable parameter."""
    row = get_ticket(session, ticket, reader)
    return LayerPage(items=[LayerShown.model_validate(layer) for layer in row.layers])


@router.get(f"{TICKET}/lineage", operation_id="get_ticket_lineage", responses=problems(404))
def get_lineage(ticket: TicketReference, session: SessionDep, reader: Reader) -> Lineage:
    """The tickets that this one was pruned from, and those pruned from it."""
    return lineage_of(session, get_ticket(session, ticket, reader), reader)


@router.get(TICKET, operation_id="get_ticket", response_model=TicketShown, responses={
    304: {"description": "Not modified"}, **problems(404)
})  # fmt: skip
def show_ticket(
    request: Request, response: Response, ticket: TicketReference, session: SessionDep, reader: Reader
) -> TicketShown | Response:
    """A listing, whole: statistics computed from the file, verdict, evaluations, lineage, manifest."""
    row = get_ticket(session, ticket, reader)
    headers = {"ETag": etag(row), "Cache-Control": "no-cache", "Vary": "Authorization"}
    if matches(request.headers.get("if-none-match"), etag(row)):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return show(session, row, reader)


def show(session: Session, row: Ticket, reader: Account | None) -> TicketShown:
    """The body of a listing."""
    evaluations = list_evaluations(session, row.digest, limit=SHOWN_EVALUATIONS).rows
    return TicketShown.model_validate(
        summary_of(row)
        | {
            "size_bytes": row.blob.size_bytes,
            "file_sha256": row.blob.digest,
            "description": row.description,
            "card": row.card,
            "warnings": row.warnings,
            "claims": row.manifest["claims"],
            "layers": row.layers,
            "manifest": row.manifest,
            "evaluations": [show_evaluation(evaluation) for evaluation in evaluations],
            "lineage": lineage_of(session, row, reader),
        }
    )


def lineage_of(session: Session, row: Ticket, reader: Account | None) -> Lineage:
    """Parents and children of a listing, as far as they are published here."""
    return Lineage(
        parent=row.parent_digest,
        ancestors=[summarise(found) for found in list_ancestors(session, row, reader)],
        children=[summarise(found) for found in list_children(session, row.digest, reader)],
    )


__all__ = ["_reference", "lineage_of", "router", "show"]
