"""REST routes that change tickets: publish, lint, card, yank."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, Response

from app.accounts.service import Caller
from app.dependencies import SessionDep, SettingsDep, StorageDep, require
from app.schemas import problems
from app.settings import Settings
from app.tickets.idempotency import check_key
from app.tickets.publishing import check_name, list_ticket, store_ticket
from app.tickets.reference import TicketReference
from app.tickets.routes import TICKET, show
from app.tickets.schemas import CardChange, LintShown, TicketShown, Yank
from app.tickets.service import etag, get_own_ticket, unyank_ticket, update_card, yank_ticket
from app.tickets.upload import FORM, Upload, receive_ticket
from nirvana.errors import Invalid, Problem
from nirvana.reader import lint
from nirvana.ticket import MEDIA_TYPE, Limits

router = APIRouter(tags=["tickets"])

Publisher = Annotated[Caller, Depends(require("publish"))]
Yanker = Annotated[Caller, Depends(require("yank"))]
IfMatch = Annotated[str | None, Header(description="the ETag of the listing that you changed")]
_FILE = {"type": "string", "format": "binary"}
_RAW = {MEDIA_TYPE: {"schema": _FILE, "example": "(bytes)"}}


def _form(**fields: Any) -> dict[str, Any]:
    properties = {"file": _FILE} | {name: {"type": "string"} for name in fields}
    schema = {"type": "object", "required": ["file"], "properties": properties}
    content = _RAW | {FORM: {"schema": schema, "example": {"file": "(bytes)"} | fields}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/tickets",
    operation_id="create_ticket",
    status_code=201,
    responses={
        200: {"description": "It was published before", "model": TicketShown},
        **problems(400, 401, 403, 409, 413, 415, 422, 507),
    },
    openapi_extra=_form(name="lenet-300-100-digits-07", visibility="public"),
)
async def create_ticket(
    request: Request,
    response: Response,
    caller: Publisher,
    settings: SettingsDep,
    storage: StorageDep,
    session: SessionDep,
    name: Annotated[str | None, Query(description="with a raw body: the ticket's name")] = None,
    visibility: Annotated[str | None, Query(description="with a raw body: public or private")] = None,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> TicketShown:
    """Publish a ticket file, as a form or as the body itself.

    The same ticket under the same name again is 200 and changes nothing; another one is 409.
    """
    upload = await receive_ticket(request, settings)
    fields = _fields(upload, {"name": name, "visibility": visibility})

    def publish() -> TicketShown:
        check_name(caller.account, fields["name"])
        stored = store_ticket(storage, upload.data, _limits(settings))  # before the first lock is taken
        check_key(session, caller.account, idempotency_key, fields | {"file": stored.file_digest})
        row, created = list_ticket(session, stored, owner=caller.account, **fields)
        response.status_code = 201 if created else 200
        where = f"/api/v1/tickets/{row.owner.name}/{row.name}"
        response.headers.update({"Location": where, "ETag": etag(row)})
        return show(session, row, caller.account)

    return await anyio.to_thread.run_sync(publish, limiter=request.app.state.lint_slots)


def _fields(upload: Upload, query: dict[str, str | None]) -> dict[str, str]:
    """Name and visibility, of the form or of the query. Raises: Invalid."""
    given = {name: value for name, value in query.items() if value is not None}
    twice = sorted(given.keys() & upload.fields.keys())
    unknown = sorted(upload.fields.keys() - query.keys())
    fields = {"visibility": "public"} | upload.fields | given
    problems = [
        Problem(f"/{name}", "given-twice", f"{name} is in the query and in the form") for name in twice
    ]
    problems += [
        Problem(f"/{name[:100]}", "unknown-field", f"{name[:100]!r} is not known") for name in unknown
    ]
    if "name" not in fields:
        problems.append(Problem("/name", "missing", "a ticket needs a name"))
    if problems:
        raise Invalid(f"{problems[0].pointer}: {problems[0].detail}.", errors=problems)
    return fields


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_upload_bytes, settings.max_parameters)


@router.post(
    "/tickets:lint",
    operation_id="lint_ticket",
    responses=problems(400, 413, 415),
    openapi_extra=_form(),
)
async def lint_ticket(request: Request, settings: SettingsDep) -> LintShown:
    """Check a ticket file as publishing does, and store nothing. A bad one is 200 with `ok: false`."""
    upload = await receive_ticket(request, settings)
    check = partial(lint, upload.data, _limits(settings))
    report = await anyio.to_thread.run_sync(check, limiter=request.app.state.lint_slots)
    return LintShown.model_validate(report.to_dict())


@router.patch(TICKET, operation_id="update_ticket", responses=problems(401, 403, 404, 412, 422))
def update_ticket(
    body: CardChange,
    response: Response,
    ticket: TicketReference,
    caller: Publisher,
    session: SessionDep,
    if_match: IfMatch = None,
) -> TicketShown:
    """Change the card or the tags of your listing; nothing else of it ever changes."""
    row = get_own_ticket(session, ticket, caller.account)
    update_card(session, row, body.model_dump(exclude_unset=True), if_match)
    response.headers["ETag"] = etag(row)
    return show(session, row, caller.account)


@router.post(f"{TICKET}/yank", operation_id="yank_ticket", responses=problems(401, 403, 404, 422))
def yank(body: Yank, ticket: TicketReference, caller: Yanker, session: SessionDep) -> TicketShown:
    """Hide your listing from search; who knows it still gets it."""
    row = get_own_ticket(session, ticket, caller.account, admin="admin" in caller.token.scopes)
    yank_ticket(session, row, body.reason, body.detail)
    return show(session, row, caller.account)


@router.post(f"{TICKET}/unyank", operation_id="unyank_ticket", responses=problems(401, 403, 404))
def unyank(ticket: TicketReference, caller: Yanker, session: SessionDep) -> TicketShown:
    """Show your listing in search again."""
    row = get_own_ticket(session, ticket, caller.account, admin="admin" in caller.token.scopes)
    unyank_ticket(session, row)
    return show(session, row, caller.account)
