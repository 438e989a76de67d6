"""REST routes of transfers. A job of the kind `transfer` measures one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.dependencies import Reader, SessionDep
from app.lists import DEFAULT_LIMIT, Cursor, Limit, link_next
from app.schemas import Plain, problems
from app.tickets.service import get_ticket
from app.transfers.schemas import TransferPage, show_transfer
from app.transfers.service import list_transfers, name_tickets

router = APIRouter(tags=["transfers"])
Ticket = Annotated[Plain | None, Query(max_length=200, description="`owner/name`, or a digest")]
Target = Annotated[Plain | None, Query(max_length=100, description="the task that it was tried on")]


@router.get("/transfers", operation_id="list_transfers", responses=problems(404, 422))
def get_transfers(
    request: Request,
    response: Response,
    session: SessionDep,
    reader: Reader,
    ticket: Ticket = None,
    task: Target = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> TransferPage:
    """Which tickets were tried on which other tasks, newest first."""
    digest = get_ticket(session, ticket, reader).digest if ticket is not None else None
    page = list_transfers(session, reader, digest=digest, task=task, limit=limit, cursor=cursor)
    link_next(request, response, page.next_cursor)
    names = name_tickets(session, reader, {row.ticket_digest for row in page.rows})
    shown = [show_transfer(row, names[row.ticket_digest]) for row in page.rows]
    return TransferPage(items=shown, next_cursor=page.next_cursor)
