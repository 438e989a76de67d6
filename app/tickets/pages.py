"""Pages of tickets: search, and one ticket."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from app.dependencies import TICKET, Cursor, SessionDep, SettingsDep, TicketReference
from app.evaluations.origins import list_attestations
from app.evaluations.pages import describe_evaluation
from app.evaluations.service import count_exams, headline, list_evaluations
from app.pages import render
from app.pagination import DEFAULT_LIMIT
from app.tickets.schemas import form_names, form_search
from app.tickets.search.conditions import Search
from app.tickets.search.results import list_edges, list_similar, search_tickets
from app.tickets.service import find_copies, get_ticket, is_digest, list_of_digest
from nirvana.client.filters import PARAMETERS
from nirvana.verification.verdicts import explain_examples

router = APIRouter()
FIELDS = [(row, form_names(row)) for row in PARAMETERS if row.label]
SHOWN_SIMILAR = 5
SHOWN_FACETS = tuple(row.name for row, _ in FIELDS if row.facet)


@router.get("/", response_class=HTMLResponse)
def search_page(
    request: Request,
    session: SessionDep,
    search: Annotated[Search, Depends(form_search)],
    cursor: Cursor = None,
) -> HTMLResponse:
    """Search."""
    page = search_tickets(session, search, limit=DEFAULT_LIMIT, cursor=cursor, facets=SHOWN_FACETS)
    query = {name: value for name, value in request.query_params.items() if value and name != "cursor"}
    context = {
        "page": page,
        "copies": find_copies(session, page.rows),
        "search": search,
        "fields": FIELDS,
        "query": query,
        "chips": [_chip(query, name) for name in query if name not in ("sort", "order")],
        "wider": f"/?{urlencode(query | {'origin': 'any'})}",
        "pages": {
            rel: f"/?{urlencode(query | {'cursor': cursor})}"
            for rel, cursor in (("prev", page.previous_cursor), ("next", page.next_cursor))
            if cursor
        },
    }
    return render(request, "search.html", context)


def _chip(query: dict[str, str], name: str) -> dict[str, str]:
    """Return an active filter with the address of the search without it."""
    others = {key: value for key, value in query.items() if key != name}
    return {"name": name.replace("_", " "), "value": query[name], "without": f"/?{urlencode(others)}"}


@router.get(TICKET, response_class=HTMLResponse)
def ticket_page(
    request: Request,
    ticket: TicketReference,
    session: SessionDep,
    settings: SettingsDep,
    cursor: Cursor = None,
) -> HTMLResponse:
    """One ticket; of a digest, what it determines and its listings."""
    if is_digest(ticket):
        return _digest_page(request, ticket, session, cursor)
    row = get_ticket(session, ticket)
    evaluations = list_evaluations(session, row.digest, None, limit=DEFAULT_LIMIT).rows
    shown = headline(session, row.exam_key)
    edges, alike = list_edges(session, row, None), list_similar(session, row, None, SHOWN_SIMILAR)
    context = {
        "ticket": row,
        "address": settings.public_url,
        "exams": count_exams(session, row.digest),
        "notes": list(explain_examples(shown.body)) if shown else [],
        "attestations": list_attestations(session, row.digest, row.task),
        "evaluations": [
            (evaluation, describe_evaluation(evaluation) | {"is_own": evaluation.exam_key == row.exam_key})
            for evaluation in evaluations
        ],
        "edges": edges,
        "alike": alike,
        "copies": find_copies(session, [row]),
    }
    return render(request, "ticket.html", context)


def _digest_page(request: Request, digest: str, session: Session, cursor: str | None) -> HTMLResponse:
    page = list_of_digest(session, digest, None, limit=DEFAULT_LIMIT, cursor=cursor)
    following = urlencode({"cursor": page.next_cursor}) if page.next_cursor else None
    context = {
        "ticket": page.rows[0],
        "rows": page.rows,
        "copies": find_copies(session, page.rows),
        "exams": count_exams(session, digest),
        "next": f"/tickets/{digest}?{following}" if following else None,
    }
    return render(request, "digest.html", context)
