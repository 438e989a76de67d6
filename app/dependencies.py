"""What a route can ask for: settings, storage, a session, and who is calling."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.accounts import service as accounts
from app.accounts.models import Account
from app.accounts.service import Caller
from app.db import Database
from app.settings import Settings
from app.storage import Storage
from nirvana.errors import InvalidQuery, NotFound, Problem, Unauthenticated

log = logging.getLogger("nirvana.app")
READING = ("GET", "HEAD")


def get_settings(request: Request) -> Settings:
    """The settings that the app was made with."""
    settings: Settings = request.app.state.settings
    return settings


def get_storage(request: Request) -> Storage:
    """The blob store."""
    storage: Storage = request.app.state.storage
    return storage


def get_database(request: Request) -> Database:
    """The database, for those who open their own transactions (streams)."""
    database: Database = request.app.state.database
    return database


def get_session(request: Request) -> Iterator[Session]:
    """The request's one transaction: it only reads for GET and HEAD, and is committed before the answer."""
    database = get_database(request)
    with database.read() if request.method in READING else database.write() as session:
        yield session


SettingsDep = Annotated[Settings, Depends(get_settings)]
StorageDep = Annotated[Storage, Depends(get_storage)]
DatabaseDep = Annotated[Database, Depends(get_database)]
# scope="function": with FastAPI's default the commit comes after the answer, and a failed one still says 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def find_caller(request: Request, database: DatabaseDep) -> Caller | None:
    """Who is calling, or None without an Authorization header.

    It has its own short transaction, over before the body is read, so that no slow upload holds a lock.

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
    """A dependency: the caller, whose token must have `scope`. Raises: Unauthenticated, MissingScope."""

    def check(caller: OptionalCaller) -> Caller:
        if caller is None:
            raise Unauthenticated(
                f"This needs a token with the scope {scope!r}: Authorization: Bearer nvn_..."
            )
        caller.need(scope)
        return caller

    return check


def any_caller(caller: OptionalCaller) -> Caller:
    """The caller, whatever the scopes. Raises: Unauthenticated."""
    if caller is None:
        raise Unauthenticated("This needs a token: Authorization: Bearer nvn_...")
    return caller


def find_account(caller: OptionalCaller) -> Account | None:
    """Whose private things may be read: the caller's account, if the token may read them."""
    if caller is None or "read" not in caller.token.scopes:
        return None
    return caller.account


AnyCaller = Annotated[Caller, Depends(any_caller)]
Reader = Annotated[Account | None, Depends(find_account)]


def refuse_unknown_query(request: Request) -> None:
    """A typo must never widen a search.

    Raises:
        InvalidQuery: a parameter that the route does not have, one given twice, or a NUL character.
        NotFound: a NUL character in the path; no database keeps one.
    """
    if "\0" in request.url.path or "\0" in request.scope["path"]:
        raise NotFound("There is nothing under a path with a NUL character.")
    known = _query_of(request.scope["route"])
    given = Counter(name for name, _ in request.query_params.multi_items())
    problems = [
        Problem(
            f"/query/{name}", "unknown-parameter", f"{name!r} is none of {', '.join(sorted(known)) or 'none'}"
        )
        for name in given
        if name not in known
    ]
    problems += [
        Problem(f"/query/{name}", "nul-character", f"{name!r} has a NUL character")
        for name, value in request.query_params.multi_items()
        if "\0" in value
    ]
    problems += [
        Problem(f"/query/{name}", "given-twice", f"{name!r} was given {count} times, expected once")
        for name, count in given.items()
        if count > 1 and known.get(name) is False
    ]
    if problems:
        raise InvalidQuery(f"Query parameter {problems[0].detail}.", errors=problems)


def _query_of(route: Any) -> dict[str, bool]:
    """A route's query parameters, each with whether it is a list."""
    known: dict[str, bool] | None = getattr(route, "nirvana_query", None)
    if known is None:
        fields = [field for field in get_flat_params(route.dependant) if isinstance(field.field_info, Query)]
        known = {field.alias: "list[" in str(field.field_info.annotation) for field in fields}
        route.nirvana_query = known
    return known
