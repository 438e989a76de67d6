"""Dependencies of routes: settings, storage, a session, the caller, the page of a list, a ticket's name.

Those that wait for nothing are coroutines: a plain function would be run in a thread, and a thread that
answers waits its turn behind those that check files. Those of every request take the request and not each
other, because a dependency of a dependency costs FastAPI more than most of them do.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import Depends, Header, Path, Query, Request, Response
from fastapi import params as parameters
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.convertors import StringConvertor, register_url_convertor

from app.accounts import service as accounts
from app.accounts.models import Account
from app.accounts.service import Caller
from app.accounts.sessions import is_from_our_page
from app.addresses import LINE, address_of, network_of
from app.db import Database
from app.limits.rates import ACTIONS, Payer
from app.limits.service import Limiter, Places, Standing
from app.pagination import DEFAULT_LIMIT, MAX_LIMIT
from app.settings import Settings
from app.storage import Storage
from nirvana.errors import Forbidden, InvalidQuery, JsonObject, NotFound, Problem, Unauthenticated

log = logging.getLogger("nirvana.app")
READING = ("GET", "HEAD")
COOKIE = "nirvana_session"
CSRF_HEADER = "x-csrf-token"
MAX_HEADER = 16_000


async def get_settings(request: Request) -> Settings:
    """Return the settings that the app was made with."""
    settings: Settings = request.app.state.settings
    return settings


async def get_storage(request: Request) -> Storage:
    """Return the blob store."""
    storage: Storage = request.app.state.storage
    return storage


async def get_database(request: Request) -> Database:
    """Return the database, for those who open their own transactions (streams)."""
    database: Database = request.app.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]


def get_session(request: Request) -> Iterator[Session]:
    """Open the request's one transaction: it only reads for GET and HEAD, and commits before the answer."""
    database: Database = request.app.state.database
    with database.read() if request.method in READING else database.write() as session:
        yield session


SettingsDep = Annotated[Settings, Depends(get_settings)]
StorageDep = Annotated[Storage, Depends(get_storage)]
# scope="function": with FastAPI's default the commit comes after the answer, and a failed one still says 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


async def identify(request: Request) -> Caller | None:
    """Return who sends a request, by the Authorization header or a session's cookie; None without either.

    This has its own short transaction, over before the body is read, so that no slow upload holds a lock. Who
    it is is found once for a request.

    Raises:
        Unauthenticated: the header is not a bearer token that is known here.
        RateLimited: the address has sent too many that are not.
    """
    if not hasattr(request.state, "sender"):
        request.state.sender = await _find_sender(request)
    sender: Caller | None = request.state.sender
    return sender


async def _find_sender(request: Request) -> Caller | None:
    database: Database = request.app.state.database
    header, cookie = request.headers.get("authorization"), request.cookies.get(COOKIE)
    if header is None:
        return await run_in_threadpool(_find_session, database, cookie) if cookie else None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("The Authorization header must be: Bearer nvn_...")
    return await run_in_threadpool(_find_bearer, request, database, secret.strip())


Sender = Annotated[Caller | None, Depends(identify)]


async def find_caller(request: Request) -> Caller | None:
    """Return the caller of the API: the sender, where a session that writes proves to be our own page's.

    Raises:
        Forbidden: it does not.
    """
    sender = await identify(request)
    is_session = sender is not None and sender.token.kind == "session"
    if not is_session or request.method in READING:
        return sender
    if not is_from_our_page(request.cookies.get(COOKIE, ""), request.headers.get(CSRF_HEADER)):
        raise Forbidden("A session's request that writes needs the header X-CSRF-Token.")
    return sender


def _find_bearer(request: Request, database: Database, secret: str) -> Caller:
    limiter, guesser = get_limiter(request), payer_at(request)
    _count(request, limiter.look("guess", guesser))
    try:
        return _authenticate(database, secret, "token")
    except Unauthenticated:
        _count(request, limiter.hit("guess", guesser))
        raise


def _find_session(database: Database, secret: str) -> Caller | None:
    """Return the caller of a session, None where it ended: a browser keeps cookies longer than we do."""
    try:
        return _authenticate(database, secret, "session")
    except Unauthenticated:
        return None


def _authenticate(database: Database, secret: str, kind: str) -> Caller:
    with database.read() as session:
        caller = accounts.authenticate(session, secret, kind)
    if accounts.is_use_due(caller.token):
        _note_use(database, caller)
    return caller


def get_limiter(request: Request) -> Limiter:
    """Return the counters of requests."""
    limiter: Limiter = request.app.state.limiter
    return limiter


def payer_at(request: Request) -> Payer:
    """Return the address that pays for a request without a token: IPv4 alone, IPv6 by its /64."""
    address = address_of(request)
    return Payer(f"address:{network_of(address, LINE) or address}")


def _count(request: Request, standing: Standing | None) -> None:
    """Let the answer say what is left. Raises: RateLimited, when it is nothing."""
    if standing is not None:
        request.state.rate_limit = standing.headers
        standing.check()


def _note_use(database: Database, caller: Caller) -> None:
    """Write down that the token is used; on a busy or full database rather not than not answer."""
    try:
        with database.write() as session:
            accounts.note_use(session, caller.token.id)
    except OperationalError:
        log.warning("the use of token %d was not written down", caller.token.id)


OptionalCaller = Annotated[Caller | None, Depends(find_caller)]


async def find_payer(request: Request) -> Payer:
    """Return who pays for a request: the person behind the token, or else the address."""
    sender = await identify(request)
    if sender is None:
        return payer_at(request)
    return Payer(accounts.person_of(sender.account, request.app.state.settings).key, True)


PayerDep = Annotated[Payer, Depends(find_payer)]


async def check_request(request: Request) -> None:
    """Count a request, before anything else is done for it, and refuse what no route takes.

    Raises:
        RateLimited: of `limit_request`.
        InvalidQuery, NotFound: of `refuse_unknown_query`.
        RequestValidationError: of `refuse_unstorable_body`.
    """
    await limit_request(request)
    refuse_unknown_query(request)
    await refuse_unstorable_body(request)


async def limit_request(request: Request) -> None:
    """Count a request. Raises: RateLimited."""
    payer = await find_payer(request)
    route, default = request.scope["route"], "read" if request.method in READING else "write"
    action = ACTIONS.get(getattr(route, "operation_id", None) or route.name, default)
    if action is None:
        return
    limiter = get_limiter(request)
    if limiter.is_remote:
        _count(request, await run_in_threadpool(limiter.hit, action, payer))
    else:
        _count(request, limiter.hit(action, payer))


async def hold_stream(request: Request, payer: PayerDep) -> AsyncIterator[None]:
    """Hold a place for a stream until it ends. Raises: RateLimited, Unavailable."""
    places: Places = request.app.state.streams
    with places.hold(payer):
        yield


def require(scope: str) -> Callable[[Caller | None], Awaitable[Caller]]:
    """Make a dependency: the caller, whose token must have `scope`. Raises: Unauthenticated, MissingScope."""

    async def check(caller: OptionalCaller) -> Caller:
        if caller is None:
            raise Unauthenticated(
                f"This needs a token with the scope {scope!r}: Authorization: Bearer nvn_..."
            )
        caller.need(scope)
        return caller

    return check


async def any_caller(caller: OptionalCaller) -> Caller:
    """Return the caller, whatever the scopes. Raises: Unauthenticated."""
    if caller is None:
        raise Unauthenticated("This needs a token: Authorization: Bearer nvn_...")
    return caller


async def find_account(request: Request) -> Account | None:
    """Return the account whose private listings may be read: the caller's, if the token may read."""
    caller = await find_caller(request)
    if caller is None or "read" not in caller.token.scopes:
        return None
    return caller.account


AnyCaller = Annotated[Caller, Depends(any_caller)]
Reader = Annotated[Account | None, Depends(find_account)]


IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="the same key with the same request is done once"),
]
IfNoneMatch = Annotated[
    str | None, Header(max_length=MAX_HEADER, description="entity tags that you have: 304 where one is right")
]


def take_conditions(if_none_match: IfNoneMatch = None) -> None:
    """Document the header of a conditional request, which the answer reads itself."""


def take_range(
    if_none_match: IfNoneMatch = None,
    range: Annotated[
        str | None, Header(max_length=MAX_HEADER, description="`bytes=FIRST-LAST`: a part of the file")
    ] = None,
    if_range: Annotated[
        str | None, Header(max_length=MAX_HEADER, description="the part only of this entity tag")
    ] = None,
) -> None:
    """Document the headers of a download, which the answer reads itself."""


Conditional = [Depends(take_conditions)]
Ranged = [Depends(take_range)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="most items on the page")]
Cursor = Annotated[
    str | None, Query(max_length=2000, description="`next_cursor` of the page before, of the same query")
]


@dataclass(frozen=True)
class Paging:
    """The page of a list that a request asks for, and the answer that says where the next one is."""

    request: Request
    response: Response
    limit: int
    cursor: str | None

    def link(self, **cursors: str | None) -> None:
        """Say where other pages are: rel -> cursor; Link: <...>; rel="next"."""
        link_pages(self.request, self.response, cursors)


async def read_paging(
    request: Request, response: Response, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Paging:
    """Return the page that the query asks for."""
    return Paging(request, response, limit, cursor)


def link_pages(request: Request, response: Response, cursors: Mapping[str, str | None]) -> None:
    """Say where other pages are, as references without a host (RFC 8288): a caller's Host header is no
    address.

    Args:
        cursors: rel -> the page's cursor, or None where there is none.
    """
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    path = quote(request.url.path)
    links = [
        f'<{path}?{urlencode([*query, ("cursor", cursor)])}>; rel="{rel}"'
        for rel, cursor in cursors.items()
        if cursor is not None
    ]
    if links:
        response.headers["Link"] = ", ".join(links)


PagingDep = Annotated[Paging, Depends(read_paging)]


class TicketConvertor(StringConvertor):
    """The part of a path that names a ticket."""

    regex = r"sha256:[^/]+|(?!sha256:)[^/]+/[^/]+"


register_url_convertor("ticket", TicketConvertor())
TICKET = "/tickets/{ticket:ticket}"
TicketReference = Annotated[
    str,
    Path(
        max_length=200,
        json_schema_extra={"pattern": r"^(sha256:[0-9a-f]{64}|[a-z0-9-]{1,39}/[a-z0-9._-]{1,100})$"},
        description="`owner/name`, or `sha256:` and 64 hex digits",
        examples=["ada/lenet-300-100-digits-07"],
    ),
]


TASK_PARTS = ("croissant", "data", "frontier", "leaderboard", "unyank", "yank")


class TaskConvertor(StringConvertor):
    """The part of a path that names a task. What follows it is no part of its name (`TASK_PARTS`)."""

    regex = rf"[^/]+(?:/(?!(?:{'|'.join(TASK_PARTS)})(?:/|$))[^/]+)?"


register_url_convertor("task", TaskConvertor())
TASK = "/tasks/{task:task}"
TaskName = Annotated[
    str,
    Path(
        max_length=200,
        description="a task's name, or `owner/name` of one that somebody made here",
        examples=["digits"],
    ),
]
Name = Annotated[str, Path(max_length=200)]
RowId = Annotated[int, Path(ge=1, lt=2**31)]


async def refuse_unstorable_body(request: Request) -> None:
    """Refuse a JSON body with a text that no database keeps, or a number past every float.

    Raises:
        RequestValidationError: each with its place, whatever model the body is of.
    """
    field = request.scope["route"].body_field
    if field is None or isinstance(field.field_info, parameters.Form):  # no JSON, or the route reads it
        return
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        return  # FastAPI has refused it, or its model will
    if problems := list(_unstorable(body)):
        raise RequestValidationError(problems)


def _unstorable(body: object) -> Iterator[JsonObject]:
    """Yield the texts and numbers of a JSON value that nothing can keep, without recursion."""
    left: list[tuple[tuple[str | int, ...], object]] = [(("body",), body)]
    while left:
        place, value = left.pop()
        if isinstance(value, dict):
            left += [((*place, name), member) for name, member in value.items()]
            left += [((*place, name), name) for name in value]
        elif isinstance(value, list):
            left += [((*place, number), member) for number, member in enumerate(value)]
        elif detail := _why_unstorable(value):
            yield {"type": "unstorable", "loc": place, "msg": detail, "input": None}


def _why_unstorable(value: object) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            return "a NUL character, which no database keeps"
        return (
            None if value.isascii() or not any(map(_is_surrogate, value)) else "half a character is no text"
        )
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return "a number past the largest float"
    return None


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def refuse_unknown_query(request: Request) -> None:
    """Refuse a query that the route does not know: a typo must never widen a search.

    Raises:
        InvalidQuery: a parameter that the route does not have, one given twice, or a NUL character.
        NotFound: a NUL character in the path; no database keeps one.
    """
    if "\0" in request.url.path or "\0" in request.scope["path"]:
        raise NotFound("There is nothing under a path with a NUL character.")
    known = _query_of(request.scope["route"])
    values = request.query_params.multi_items()
    counts = Counter(name for name, _ in values)
    expected = f"is none of {', '.join(sorted(known)) or 'none'}"
    problems = [
        Problem(f"/query/{name}", "unknown-parameter", f"{name!r} {expected}")
        for name in counts
        if name not in known
    ]
    problems += [
        Problem(f"/query/{name}", "nul-character", f"{name!r} has a NUL character")
        for name, value in values
        if "\0" in value
    ]
    problems += [
        Problem(f"/query/{name}", "given-twice", f"{name!r} was given {count} times, expected once")
        for name, count in counts.items()
        if count > 1 and known.get(name) is False
    ]
    if problems:
        raise InvalidQuery(f"Query parameter {problems[0].detail}.", errors=problems)


def _query_of(route: APIRoute) -> dict[str, bool]:
    """Return the route's query parameters: name -> True for a list. They are kept on the route."""
    known: dict[str, bool] | None = getattr(route, "nirvana_query", None)
    if known is None:
        flat = get_flat_params(route.dependant)  # a field of a model of the query says nothing of where it is
        others = (parameters.Path, parameters.Header, parameters.Cookie)
        fields = [field for field in flat if not isinstance(field.field_info, others)]
        known = {field.alias: "list[" in str(field.field_info.annotation) for field in fields}
        vars(route)["nirvana_query"] = known
    return known
