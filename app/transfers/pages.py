"""The page of transfers: tickets by tasks."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.dependencies import SessionDep
from app.pages import render
from app.transfers.service import name_tickets, read_matrix

router = APIRouter()


@router.get("/transfers", response_class=HTMLResponse)
def transfers_page(request: Request, session: SessionDep) -> HTMLResponse:
    """Which public tickets serve which other tasks."""
    matrix = read_matrix(session, None)
    targets = sorted({task for cells in matrix.values() for task in cells})
    context = {"matrix": matrix, "targets": targets, "names": name_tickets(session, None, set(matrix))}
    return render(request, "transfers.html", context)
