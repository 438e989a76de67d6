"""REST route and page of transfers. A job of the kind `transfer` measures one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from app.dependencies import PagingDep, Reader, SessionDep
from app.pages import render
from app.schemas import Plain, problems
from app.tickets.service import get_ticket
from app.transfers.schemas import TransferPage, transfer_response
from app.transfers.service import list_transfers, name_tickets, read_matrix

router = APIRouter(tags=["transfers"])
pages = APIRouter()
OfTicket = Annotated[Plain | None, Query(max_length=200, description="`owner/name`, or a digest")]
Target = Annotated[Plain | None, Query(max_length=100, description="the task that it was tried on")]


@router.get("/transfers", operation_id="list_transfers", responses=problems(404, 422))
def get_transfers(
    session: SessionDep, reader: Reader, paging: PagingDep, ticket: OfTicket = None, task: Target = None
) -> TransferPage:
    """Transfers of tickets to other tasks, newest first."""
    digest = get_ticket(session, ticket, reader).digest if ticket is not None else None
    page = list_transfers(session, reader, digest=digest, task=task, limit=paging.limit, cursor=paging.cursor)
    paging.link(next=page.next_cursor)
    names = name_tickets(session, reader, {row.ticket_digest for row in page.rows})
    items = [transfer_response(row, names[row.ticket_digest]) for row in page.rows]
    return TransferPage(items=items, next_cursor=page.next_cursor)


@pages.get("/transfers", response_class=HTMLResponse)
def transfers_page(request: Request, session: SessionDep) -> HTMLResponse:
    """The matrix of public tickets and the other tasks that they were tried on."""
    matrix = read_matrix(session, None)
    targets = sorted({task for cells in matrix.values() for task in cells})
    context = {"matrix": matrix, "targets": targets, "names": name_tickets(session, None, set(matrix))}
    return render(request, "transfers.html", context)
