"""REST routes of tickets: search, show, download; publish, lint, change the card, yank."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.organisations.roles import get_owner
from app.accounts.service import Caller, check_storage
from app.db import Database, Json
from app.dependencies import (
    TICKET,
    Conditional,
    DatabaseDep,
    IdempotencyKey,
    Limit,
    Paging,
    PagingDep,
    PayerDep,
    Ranged,
    Reader,
    SessionDep,
    SettingsDep,
    StorageDep,
    TicketReference,
    require,
)
from app.evaluations.schemas import evaluation_response
from app.evaluations.service import count_exams, list_evaluations
from app.schemas import ResponseModel, binary, problems
from app.tickets.commits import Commits, Entry
from app.tickets.files.checking import Checker
from app.tickets.files.counting import list_downloads
from app.tickets.files.downloads import find_bytes, find_file
from app.tickets.files.serving import (
    Export,
    Upload,
    describe_upload,
    exits_of,
    export_file,
    matches,
    receive_ticket,
    serve,
)
from app.tickets.models import Listing
from app.tickets.publishing import (
    Publication,
    find_left_out,
    split_name,
    store_blob,
)
from app.tickets.schemas import (
    CardChange,
    DigestResponse,
    DownloadDay,
    DownloadPage,
    LayerPage,
    LayerResponse,
    Lineage,
    LineageEdge,
    LineageTree,
    LintResponse,
    NewListing,
    PublishedResponse,
    SimilarPage,
    SimilarTicket,
    TicketPage,
    TicketResponse,
    Visibility,
    Yank,
    query_facets,
    query_search,
    summarise,
    summary_of,
)
from app.tickets.search.conditions import Search
from app.tickets.search.results import (
    Edge,
    find_hits,
    list_ancestors,
    list_children,
    list_edges,
    list_similar,
)
from app.tickets.service import (
    etag,
    find_copies,
    get_own,
    get_own_ticket,
    get_ticket,
    is_digest,
    list_of_digest,
    unyank_ticket,
    update_card,
    yank_ticket,
)
from app.tickets.summaries import Summaries
from app.tickets.visibility import change_visibility
from nirvana.errors import Invalid, Problem
from nirvana.format.ticket import MEDIA_TYPE

router = APIRouter(tags=["tickets"])
SHOWN_EVALUATIONS = 25
SHOWN_SIMILAR = 10
DAYS = 90

EXPORT_TYPES = ("application/octet-stream", "text/x-python")


def exported(description: str) -> Json:
    """Return the OpenAPI response of an export."""
    contents = [binary(kind, description)["content"] for kind in EXPORT_TYPES]
    return {"description": description, "content": contents[0] | contents[1]}


Publisher = Annotated[Caller, Depends(require("publish"))]
Yanker = Annotated[Caller, Depends(require("yank"))]
IfMatch = Annotated[
    str | None, Header(max_length=1000, description="the ETag of the listing that you changed")
]


@router.get("/tickets", operation_id="list_tickets", response_model=TicketPage, responses=problems(422))
def list_tickets(
    request: Request,
    session: SessionDep,
    reader: Reader,
    paging: PagingDep,
    search: Annotated[Search, Depends(query_search)],
    facets: Annotated[tuple[str, ...], Depends(query_facets)],
) -> Response:
    """Search listings. Accuracies and verdicts are those measured here; a claim is never searched."""
    page = find_hits(session, search, reader=reader, limit=paging.limit, cursor=paging.cursor, facets=facets)
    paging.link(next=page.next_cursor, prev=page.previous_cursor)
    summaries: Summaries = request.app.state.summaries
    body = summaries.page_body(session, page)
    return Response(body, media_type="application/json", headers=paging.response.headers)


@router.get(f"{TICKET}/file", operation_id="get_ticket_file", response_class=Response,
    dependencies=Ranged, responses={
    200: binary(MEDIA_TYPE, "The file; its ETag is the sha256 of its bytes."),
    206: binary(MEDIA_TYPE, "The range that was asked for."),
    304: {"description": "Not modified"},
    **problems(404, 416),
})  # fmt: skip
def get_file(
    request: Request,
    ticket: TicketReference,
    session: SessionDep,
    reader: Reader,
    storage: StorageDep,
    settings: SettingsDep,
) -> Response:
    """The .ticket file: If-None-Match, Range and If-Range work."""
    file = find_file(session, ticket, reader)
    response = serve(request, storage, file.download, exits_of(settings))
    request.app.state.downloads.note(request, response, file.listing_id)
    return response


@router.get("/files/{file_sha256}", operation_id="get_file", response_class=Response, responses={
    200: binary(MEDIA_TYPE, "The file; its ETag is the sha256 of its bytes."),
    206: binary(MEDIA_TYPE, "The range that was asked for."),
    304: {"description": "Not modified"},
    **problems(404, 416),
})  # fmt: skip
@router.head("/files/{file_sha256}", include_in_schema=False)
def get_file_of_bytes(
    request: Request,
    file_sha256: Annotated[
        str, Path(max_length=71, description="`sha256:` and 64 hex digits, of the file's bytes")
    ],
    session: SessionDep,
    reader: Reader,
    storage: StorageDep,
    settings: SettingsDep,
) -> Response:
    """A .ticket file by the sha256 of its bytes, as long as some listing that you may see has it."""
    file = find_bytes(session, file_sha256, reader)
    response = serve(request, storage, file.download, exits_of(settings))
    request.app.state.downloads.note(request, response, file.listing_id)
    return response


@router.get(f"{TICKET}/export", operation_id="get_ticket_export", response_class=Response,
    dependencies=Ranged, responses={
    200: exported("The ticket in that form."),
    206: exported("The range that was asked for."),
    304: {"description": "Not modified"},
    **problems(404, 413, 416, 422, 429, 503, 507),
})  # fmt: skip
async def get_export(
    request: Request,
    ticket: TicketReference,
    format: Literal["safetensors", "numpy", "csr", "onnx", "script"],
    database: DatabaseDep,
    reader: Reader,
    payer: PayerDep,
) -> Response:
    """The ticket as masked safetensors, as a NumPy archive, as compressed sparse rows for SciPy, as an ONNX
    model, or as a Python script that trains it."""
    row = await run_in_threadpool(_find, database, ticket, reader)  # no connection is held while it is made
    export = Export(row, format, is_immutable=not is_digest(ticket))
    return await export_file(request, request.app.state.exporter, payer, export)


def _find(database: Database, reference: str, reader: Account | None) -> Listing:
    with database.read() as session:
        return get_ticket(session, reference, reader)


@router.get(f"{TICKET}/downloads", operation_id="list_ticket_downloads", responses=problems(404))
def get_downloads(ticket: TicketReference, session: SessionDep, reader: Reader) -> DownloadPage:
    """Downloads of a listing's file a day, without robots: the newest 90 days that had any."""
    total, rows = list_downloads(session, find_file(session, ticket, reader).listing_id, DAYS)
    return DownloadPage(total=total, items=[DownloadDay.model_validate(row) for row in rows])


@router.get(f"{TICKET}/layers", operation_id="list_ticket_layers", responses=problems(404))
def list_layers(ticket: TicketReference, session: SessionDep, reader: Reader) -> LayerPage:
    """The weights, prunable or not, each layer with the number of those kept."""
    row = get_ticket(session, ticket, reader)
    return LayerPage(items=[LayerResponse.model_validate(layer) for layer in row.layers])


@router.get(f"{TICKET}/similar", operation_id="list_similar_tickets", responses=problems(404, 422))
def list_similar_tickets(
    ticket: TicketReference, session: SessionDep, reader: Reader, limit: Limit = SHOWN_SIMILAR
) -> SimilarPage:
    """Other tickets whose first masks are most like this one's, in whatever order of their units; near-copies
    share most of the sketch. `diff` counts exactly, and a search by `similar_to` takes filters."""
    alike = list_similar(session, get_ticket(session, ticket, reader), reader, limit)
    copies = find_copies(session, [row for row, _ in alike])
    items = [SimilarTicket.model_validate(summary_of(row, copies) | {"shared": part}) for row, part in alike]
    return SimilarPage(items=items)


@router.get(f"{TICKET}/lineage", operation_id="get_ticket_lineage", responses=problems(404))
def get_lineage(ticket: TicketReference, session: SessionDep, reader: Reader) -> LineageTree:
    """The tickets that this one was pruned from, and those pruned from it: facts where a job of the registry
    saw it, else claims, which lead to listings of the same owner alone."""
    row = get_ticket(session, ticket, reader)
    edges = [_edge_response(edge) for edge in list_edges(session, row, reader)]
    return LineageTree(**dict(_lineage(session, row, reader)), edges=edges)


def _edge_response(edge: Edge) -> LineageEdge:
    child, parent = edge.child, edge.parent
    return LineageEdge.model_validate(
        {name: getattr(child, name) for name in ("job_id", "level", "density", "verdict")}
        | {"parent": edge.parent_digest, "child": child.digest, "known_by": edge.known_by}
        | {"child_name": f"{child.owner.name}/{child.name}"}
        | {"parent_name": f"{parent.owner.name}/{parent.name}" if parent is not None else None}
    )


@router.get(TICKET, operation_id="get_ticket", response_model=TicketResponse | DigestResponse,
    dependencies=Conditional, responses={
    304: {"description": "Not modified"}, **problems(404, 422)
})  # fmt: skip
def show_ticket(
    request: Request,
    response: Response,
    ticket: TicketReference,
    session: SessionDep,
    reader: Reader,
    paging: PagingDep,
) -> TicketResponse | DigestResponse | Response:
    """A listing, whole: statistics computed from the file, verdict, evaluations, lineage, manifest. Of a
    digest: what it determines, and its listings, whose pages `limit` and `cursor` are for."""
    if is_digest(ticket):
        return _show_digest(ticket, session, reader, paging)
    row = get_ticket(session, ticket, reader)
    body = _ticket_response(session, row, reader)
    return _not_modified(request, response, _tag(body, row)) or body


def _tag(body: ResponseModel, row: Listing | None = None) -> str:
    return etag(body.model_dump_json(), row)


def _not_modified(request: Request, response: Response, tag: str) -> Response | None:
    """Return the answer to who has this body already; else None, with the headers of the answer set."""
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Authorization"}
    if matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return None


def _show_digest(
    digest: str, session: Session, reader: Account | None, paging: Paging
) -> DigestResponse | Response:
    """Return what a digest determines, and a page of its listings."""
    page = list_of_digest(session, digest, reader, limit=paging.limit, cursor=paging.cursor)
    row, copies = page.rows[0], find_copies(session, page.rows)
    paging.link(next=page.next_cursor)
    listings = [
        summary_of(one, copies)
        | {"exam": one.exam_key, "file_sha256": one.blob.digest}
        | {"is_first": paging.cursor is None and one is row}
        for one in page.rows
    ]
    own: Json = {
        "architecture": row.architecture.digest,
        "exams": count_exams(session, digest),
        "listings": listings,
        "next_cursor": page.next_cursor,
    }
    same = DigestResponse.model_fields.keys() - own.keys()
    body = DigestResponse.model_validate({name: getattr(row, name) for name in same} | own)
    return _not_modified(paging.request, paging.response, _tag(body)) or body


def _ticket_response(session: Session, row: Listing, reader: Account | None) -> TicketResponse:
    """Return the body of a listing."""
    evaluations = list_evaluations(session, row.digest, reader, limit=SHOWN_EVALUATIONS).rows
    return _shape_ticket(
        row,
        find_copies(session, [row]),
        exams=count_exams(session, row.digest),
        evaluations=[evaluation_response(evaluation) for evaluation in evaluations],
        lineage=_lineage(session, row, reader),
    )


def _shape_ticket(
    row: Listing, copies: Mapping[int, str] = MappingProxyType({}), **about: object
) -> TicketResponse:
    """Return the body of a listing with what else is known about its ticket; by default nothing is."""
    nothing = {
        "exams": {},
        "evaluations": [],
        "lineage": Lineage(parent=None, is_claim=False, ancestors=[], children=[]),
    }
    return TicketResponse.model_validate(
        summary_of(row, copies)
        | {
            "size_bytes": row.blob.size_bytes,
            "file_sha256": row.blob.digest,
            "exam": row.exam_key,
            "description": row.description,
            "card": row.card,
            "warnings": row.warnings,
            "claims": row.manifest["claims"],
            "layers": row.layers,
            "manifest": row.manifest,
        }
        | nothing
        | about
    )


def _lineage(session: Session, row: Listing, reader: Account | None) -> Lineage:
    """Return the parents and children of a listing, as far as they are published here."""
    ancestors, children = list_ancestors(session, row, reader), list_children(session, row, reader)
    copies = find_copies(session, [*ancestors, *children])
    return Lineage(
        parent=row.parent_digest,
        is_claim=row.parent_digest is not None and row.job_id is None,
        ancestors=summarise(ancestors, copies),
        children=summarise(children, copies),
    )


@router.post(
    "/tickets",
    operation_id="create_ticket",
    status_code=201,
    response_model=TicketResponse,
    responses={
        200: {"description": "It was published before", "model": PublishedResponse},
        **problems(400, 401, 403, 409, 410, 413, 415, 422, 429, 503, 507),
    },
    openapi_extra=describe_upload(NewListing),
)
async def create_ticket(
    request: Request,
    caller: Publisher,
    settings: SettingsDep,
    storage: StorageDep,
    database: DatabaseDep,
    name: Annotated[
        str | None, Query(max_length=140, description="with a raw body: the ticket's name")
    ] = None,
    visibility: Annotated[Visibility | None, Query(description="with a raw body")] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Publish a ticket file, as a form or as the body itself.

    The same ticket under the same name again is 200: it takes a visibility that is said, and `left_out` names
    what else of the new file the listing does not take over. Another ticket is 409.
    """
    commits: Commits = request.app.state.commits
    checker: Checker = request.app.state.checker
    commits.check()
    checker.refuse_crowd()
    upload = await receive_ticket(request, settings)
    fields = _read_fields(upload, {"name": name, "visibility": visibility})
    owner_name, listing_name = split_name(caller.account, fields.name)
    caller.need_name(owner_name, listing_name)
    owner = caller.account
    if owner_name != owner.name:
        owner = await run_in_threadpool(_find_owner, database, caller, owner_name)
    check_storage(settings, caller.account, len(upload.data))
    checked = await checker.check(upload.data, partial(store_blob, storage, upload.data))
    asked = {"name": fields.name, "visibility": fields.visibility or "public", "file": checked.file_digest}
    place = Publication(owner, listing_name, fields.visibility, publisher=caller.account)
    published = await commits.publish(Entry(checked, place, idempotency_key, asked))
    row = published.row
    if published.is_lone:
        shown = _shape_ticket(row)
    else:
        row, shown = await run_in_threadpool(_show_published, database, row, owner, caller.account)
    body = PublishedResponse(**dict(shown), left_out=find_left_out(row, checked))
    where = f"/api/v1/tickets/{row.owner.name}/{row.name}"
    return _json_response(body, row, 201 if published.is_new else 200, {"Location": where})


def _show_published(
    database: Database, row: Listing, owner: Account, reader: Account
) -> tuple[Listing, TicketResponse]:
    """Return a listing as the database has it now, and its body."""
    with database.read() as session:
        row = get_own(session, owner, row.name)
        return row, _ticket_response(session, row, reader)


def _find_owner(database: Database, caller: Caller, name: str) -> Account:
    """Return the owner that the caller publishes for, before the file is read. Raises: Forbidden."""
    with database.read() as session:
        return get_owner(session, caller.account, name)


def _json_response(
    body: ResponseModel, row: Listing | None, status: int, headers: dict[str, str]
) -> Response:
    """Return a body, written once, with its ETag."""
    text = body.model_dump_json()
    return Response(text, status, headers | {"ETag": etag(text, row)}, "application/json")


def _read_fields(upload: Upload, query: dict[str, str | None]) -> NewListing:
    """Return the fields of the form or of the query. Raises: Invalid, RequestValidationError."""
    in_query = {name: value for name, value in query.items() if value is not None}
    if twice := sorted(in_query.keys() & upload.fields.keys()):
        detail = f"{twice[0]} is in the query and in the form"
        raise Invalid(f"{detail}.", errors=[Problem(f"/{name}", "given-twice", detail) for name in twice])
    try:
        return NewListing.model_validate(upload.fields | in_query)
    except ValidationError as error:
        raise RequestValidationError(
            [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
        ) from None


@router.post(
    "/tickets:lint",
    operation_id="lint_ticket",
    responses=problems(400, 413, 415, 507),
    openapi_extra=describe_upload(),
)
async def lint_ticket(request: Request, settings: SettingsDep) -> LintResponse:
    """Check a ticket file as publishing does, and store nothing. A bad one is 200 with `ok: false`."""
    linter: Checker = request.app.state.linter
    linter.refuse_crowd()
    upload = await receive_ticket(request, settings)
    report = await linter.lint(upload.data)
    return LintResponse.model_validate(report.to_dict())


@router.patch(TICKET, operation_id="update_ticket", responses=problems(401, 403, 404, 409, 412, 422))
def update_ticket(
    body: CardChange,
    response: Response,
    ticket: TicketReference,
    caller: Publisher,
    session: SessionDep,
    if_match: IfMatch = None,
) -> TicketResponse:
    """Change the card, the tags or the visibility of your listing; nothing else of it ever changes. It can be
    made public at any time, and private until something of others depends on it: then it is 409, and says on
    what."""
    row = _get_own(session, ticket, caller, admin=False)
    update_card(session, row, body.model_dump(exclude_unset=True), if_match)
    if body.visibility is not None:
        change_visibility(session, row, body.visibility)
        session.flush()
        row = get_own(session, row.owner, row.name)
    changed = _ticket_response(session, row, caller.account)
    response.headers["ETag"] = _tag(changed, row)
    return changed


@router.post(f"{TICKET}/yank", operation_id="yank_ticket", responses=problems(401, 403, 404, 422))
def yank(body: Yank, ticket: TicketReference, caller: Yanker, session: SessionDep) -> TicketResponse:
    """Hide your listing from search; who knows it still gets it."""
    row = _get_own(session, ticket, caller, admin="admin" in caller.token.scopes)
    yank_ticket(session, row, body.reason, body.detail)
    return _ticket_response(session, row, caller.account)


@router.post(f"{TICKET}/unyank", operation_id="unyank_ticket", responses=problems(401, 403, 404))
def unyank(ticket: TicketReference, caller: Yanker, session: SessionDep) -> TicketResponse:
    """Show your listing in search again."""
    row = _get_own(session, ticket, caller, admin="admin" in caller.token.scopes)
    unyank_ticket(session, row)
    return _ticket_response(session, row, caller.account)


def _get_own(session: Session, ticket: str, caller: Caller, *, admin: bool) -> Listing:
    row = get_own_ticket(session, ticket, caller.account, admin=admin)
    caller.need_name(row.owner.name, row.name)
    return row
