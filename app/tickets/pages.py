"""Pages of tickets: search, and one ticket."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from app.dependencies import SessionDep, SettingsDep
from app.evaluations.pages import describe_evaluation
from app.evaluations.service import list_evaluations
from app.lists import DEFAULT_LIMIT, Cursor
from app.pages import render
from app.ranges import Range
from app.tickets import reference as _reference  # registers the path convertor
from app.tickets.reference import TicketReference
from app.tickets.search import Search, list_ancestors, list_children, search_tickets
from app.tickets.service import get_ticket

router = APIRouter()
SHOWN_FACETS = ("task", "architecture", "method", "verdict")
Word = Annotated[str, Query(max_length=200)]
Percent = Annotated[str, Query(max_length=20, pattern=r"^\d*\.?\d*$", description="% of weights left")]


def read_form(
    q: Word = "",
    task: Word = "",
    architecture: Word = "",
    method: Word = "",
    verdict: Word = "",
    owner: Word = "",
    tag: Word = "",
    min_left: Percent = "",
    max_left: Percent = "",
    sort: Literal["created_at", "accuracy", "gap", "density", "kept"] = "created_at",
) -> Search:
    """The search form, in which every field may be empty."""
    equal = {"task": task, "architecture": architecture, "method": method, "verdict": verdict.upper()}
    density = Range(_share(min_left), _share(max_left))
    return Search(
        q=q,
        equal={name: value for name, value in equal.items() if value},
        owner=owner or None,
        tag=tag or None,
        ranges={"density": density} if density != Range() else {},
        sort=sort,
    )


def _share(percent: str) -> float | None:
    return float(percent) / 100 if any(character.isdigit() for character in percent) else None


@router.get("/", response_class=HTMLResponse)
def search_page(
    request: Request,
    session: SessionDep,
    search: Annotated[Search, Depends(read_form)],
    cursor: Cursor = None,
) -> HTMLResponse:
    """Search."""
    page = search_tickets(session, search, limit=DEFAULT_LIMIT, cursor=cursor, facets=SHOWN_FACETS)
    given = {name: value for name, value in request.query_params.items() if value and name != "cursor"}
    chips = [_chip(given, name) for name in given if name != "sort"]
    following = f"/?{urlencode(given | {'cursor': page.next_cursor})}" if page.next_cursor else None
    context = {"page": page, "search": search, "given": given, "chips": chips, "next": following}
    return render(request, "search.html", context)


def _chip(given: dict[str, str], name: str) -> dict[str, Any]:
    """An active filter with the address of the search without it."""
    others = {key: value for key, value in given.items() if key != name}
    return {"name": name.replace("_", " "), "value": given[name], "without": f"/?{urlencode(others)}"}


@router.get("/tickets/{ticket:ticket}", response_class=HTMLResponse)
def ticket_page(
    request: Request, ticket: TicketReference, session: SessionDep, settings: SettingsDep
) -> HTMLResponse:
    """One ticket."""
    row = get_ticket(session, ticket)
    evaluations = list_evaluations(session, row.digest, limit=DEFAULT_LIMIT).rows
    context = {
        "ticket": row,
        "address": settings.public_url,
        "evaluations": [(found, describe_evaluation(found)) for found in evaluations],
        "ancestors": list_ancestors(session, row, None),
        "children": list_children(session, row.digest, None),
    }
    return render(request, "ticket.html", context)


__all__ = ["_reference", "router"]
