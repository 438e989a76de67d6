"""Dependencies of routes: settings, storage, a session, the caller, the page of a list, a ticket's name."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import Depends, Header, Path, Query, Request, Response
from fastapi import params as parameters
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.convertors import StringConvertor, register_url_convertor

from app.accounts import service as accounts
from app.accounts.models import Account
from app.accounts.service import Caller
from app.db import Database
from app.pagination import DEFAULT_LIMIT, MAX_LIMIT
from app.settings import Settings
from app.storage import Storage
from nirvana.errors import InvalidQuery, JsonObject, NotFound, Problem, Unauthenticated

log = logging.getLogger("nirvana.app")
READING = ("GET", "HEAD")
MAX_HEADER = 16_000


def get_settings(request: Request) -> Settings:
    """Return the settings that the app was made with."""
    settings: Settings = request.app.state.settings
    return settings


def get_storage(request: Request) -> Storage:
    """Return the blob store."""
    storage: Storage = request.app.state.storage
    return storage


def get_database(request: Request) -> Database:
    """Return the database, for those who open their own transactions (streams)."""
    database: Database = request.app.state.database
    return database


DatabaseDep = Annotated[Database, Depends(get_database)]


def get_session(request: Request, database: DatabaseDep) -> Iterator[Session]:
    """Open the request's one transaction: it only reads for GET and HEAD, and commits before the answer."""
    with database.read() if request.method in READING else database.write() as session:
        yield session


SettingsDep = Annotated[Settings, Depends(get_settings)]
StorageDep = Annotated[Storage, Depends(get_storage)]
# scope="function": with FastAPI's default the commit comes after the answer, and a failed one still says 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def find_caller(request: Request, database: DatabaseDep) -> Caller | None:
    """Return the caller, or None without an Authorization header.

    This has its own short transaction, over before the body is read, so that no slow upload holds a lock.

    Raises:
        Unauthenticated: the header is not a bearer token that is known here.
    """
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("The Authorization header must be: Bearer nvn_...")
    with database.read() as session:
        caller = accounts.authenticate(session, secret.strip())
    if accounts.is_use_due(caller.token):
        _note_use(database, caller)
    return caller


def _note_use(database: Database, caller: Caller) -> None:
    """Write down that the token is used; on a busy or full database rather not than not answer."""
    try:
        with database.write() as session:
            accounts.note_use(session, caller.token.id)
    except OperationalError:
        log.warning("the use of token %d was not written down", caller.token.id)


OptionalCaller = Annotated[Caller | None, Depends(find_caller)]


def require(scope: str) -> Callable[[Caller | None], Caller]:
    """Make a dependency: the caller, whose token must have `scope`. Raises: Unauthenticated, MissingScope."""

    def check(caller: OptionalCaller) -> Caller:
        if caller is None:
            raise Unauthenticated(
                f"This needs a token with the scope {scope!r}: Authorization: Bearer nvn_..."
            )
        caller.need(scope)
        return caller

    return check


def any_caller(caller: OptionalCaller) -> Caller:
    """Return the caller, whatever the scopes. Raises: Unauthenticated."""
    if caller is None:
        raise Unauthenticated("This needs a token: Authorization: Bearer nvn_...")
    return caller


def find_account(caller: OptionalCaller) -> Account | None:
    """Return the account whose private listings may be read: the caller's, if the token may read."""
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

    def link_next(self, cursor: str | None) -> None:
        """Say where the next page is: Link: <...>; rel="next"."""
        link_next(self.request, self.response, cursor)


def read_paging(
    request: Request, response: Response, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Paging:
    """Return the page that the query asks for."""
    return Paging(request, response, limit, cursor)


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Say where the next page is: Link: <...>; rel="next"."""
    if cursor is None:
        return
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    path = quote(request.url.path)  # without the host, which is whatever the caller says
    response.headers["Link"] = f'<{path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'


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
Name = Annotated[str, Path(max_length=200)]
RowId = Annotated[int, Path(ge=1, lt=2**31)]


async def refuse_unstorable_body(request: Request) -> None:
    """Refuse a JSON body with a text that no database keeps, or a number past every float.

    Raises:
        RequestValidationError: each with its place, whatever model the body is of.
    """
    if request.scope["route"].body_field is None:  # it is no JSON, or is read by the route itself
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
