"""Dependencies of routes: settings, storage, a session, the caller, the page of a list, a ticket's name.

Those that wait for nothing are coroutines: a plain function would be run in a thread, and a thread that
answers waits its turn behind those that check files.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Path, Query, Request, Response
from fastapi import params as parameters
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.convertors import StringConvertor, register_url_convertor

from app.accounts import service as accounts
from app.accounts.models import Account
from app.accounts.service import Caller
from app.addresses import LINE, address_of, network_of
from app.db import Database
from app.limits.rates import ACTIONS, Payer
from app.limits.service import Limiter, Places, Standing
from app.pagination import DEFAULT_LIMIT, MAX_LIMIT
from app.settings import Settings
from app.storage import Storage
from nirvana.errors import InvalidQuery, NotFound, Problem, Unauthenticated

log = logging.getLogger("nirvana.app")
READING = ("GET", "HEAD")


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


def get_session(request: Request) -> Iterator[Session]:
    """Open the request's one transaction: it only reads for GET and HEAD, and commits before the answer."""
    database: Database = request.app.state.database
    with database.read() if request.method in READING else database.write() as session:
        yield session


SettingsDep = Annotated[Settings, Depends(get_settings)]
StorageDep = Annotated[Storage, Depends(get_storage)]
DatabaseDep = Annotated[Database, Depends(get_database)]
# scope="function": with FastAPI's default the commit comes after the answer, and a failed one still says 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


async def find_caller(request: Request, database: DatabaseDep) -> Caller | None:
    """Return the caller, or None without an Authorization header.

    This has its own short transaction, over before the body is read, so that no slow upload holds a lock.

    Raises:
        Unauthenticated: the header is not a bearer token that is known here.
        RateLimited: the address has sent too many that are not.
    """
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("The Authorization header must be: Bearer nvn_...")
    return await run_in_threadpool(_authenticate, request, database, secret.strip())


def _authenticate(request: Request, database: Database, secret: str) -> Caller:
    limiter, guesser = get_limiter(request), payer_at(request)
    _count(request, limiter.look("guess", guesser))
    try:
        with database.read() as session:
            caller = accounts.authenticate(session, secret)
    except Unauthenticated:
        _count(request, limiter.hit("guess", guesser))
        raise
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


async def find_payer(request: Request, caller: OptionalCaller, settings: SettingsDep) -> Payer:
    """Return who pays for a request: the person behind the token, or else the address."""
    if caller is None:
        return payer_at(request)
    return Payer(accounts.person_of(caller.account, settings).key, True)


PayerDep = Annotated[Payer, Depends(find_payer)]


async def limit_request(request: Request, payer: PayerDep) -> None:
    """Count a request, before anything else is done for it. Raises: RateLimited."""
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


async def find_account(caller: OptionalCaller) -> Account | None:
    """Return the account whose private listings may be read: the caller's, if the token may read."""
    if caller is None or "read" not in caller.token.scopes:
        return None
    return caller.account


AnyCaller = Annotated[Caller, Depends(any_caller)]
Reader = Annotated[Account | None, Depends(find_account)]


Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="most items on the page")]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before, of the same query")]


@dataclass(frozen=True)
class Paging:
    """The page of a list that a request asks for, and the answer that says where the next one is."""

    request: Request
    response: Response
    limit: int
    cursor: str | None

    def link_next(self, cursor: str | None) -> None:
        """Say where the next page is: Link: <...>; rel="next"."""
        link_next(self.request, self.response, cursor)


async def read_paging(
    request: Request, response: Response, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Paging:
    """Return the page that the query asks for."""
    return Paging(request, response, limit, cursor)


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Say where the next page is: Link: <...>; rel="next"."""
    if cursor is None:
        return
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    url = request.url.replace(query=urlencode([*query, ("cursor", cursor)]))
    response.headers["Link"] = f'<{url}>; rel="next"'


PagingDep = Annotated[Paging, Depends(read_paging)]


class TicketConvertor(StringConvertor):
    """The part of a path that names a ticket."""

    regex = r"sha256:[^/]+|(?!sha256:)[^/]+/[^/]+"


register_url_convertor("ticket", TicketConvertor())
TICKET = "/tickets/{ticket:ticket}"
TicketReference = Annotated[
    str,
    Path(
        description="`owner/name`, or `sha256:` and 64 hex digits", examples=["ada/lenet-300-100-digits-07"]
    ),
]


async def refuse_unknown_query(request: Request) -> None:
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
        flat = get_flat_params(route.dependant)
        fields = [field for field in flat if isinstance(field.field_info, parameters.Query)]
        known = {field.alias: "list[" in str(field.field_info.annotation) for field in fields}
        vars(route)["nirvana_query"] = known
    return known
