"""Pages of sign-ins at a provider: away to it, back from it, and the name of a new account."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field

from app.accounts.oidc import service
from app.accounts.oidc.provider import Provider
from app.accounts.pages import FormCaller, SignedIn, Text, enter, local_path, show_account
from app.accounts.routes import is_encrypted, refuse_other_sites
from app.accounts.service import Caller
from app.accounts.sessions import begin_session
from app.addresses import site_of
from app.db import Database
from app.dependencies import DatabaseDep, RowId, SettingsDep
from app.pages import render
from app.schemas import Plain, RequestModel
from app.settings import Settings
from nirvana.errors import Forbidden, NirvanaError, NotFound, Unavailable

router = APIRouter(dependencies=[Depends(refuse_other_sites)])
COOKIE = "nirvana_sign_in"
PATH = "/sign-in/oidc"
Answered = Annotated[Plain, Field(max_length=4000)]


def get_provider(settings: SettingsDep) -> Provider:
    """Return the provider of the settings. Raises: NotFound: there is none."""
    if not settings.has_oidc:
        raise NotFound("This service signs nobody in by a provider.")
    return Provider(settings)


ProviderDep = Annotated[Provider, Depends(get_provider)]


@router.get("/sign-in/oidc", response_class=HTMLResponse)
async def begin_sign_in(
    request: Request,
    provider: ProviderDep,
    database: DatabaseDep,
    after: Annotated[str, Query(max_length=1000)] = "/account",
) -> Response:
    """Send a visitor to the provider."""
    return await _leave(request, provider, database, local_path(after), None)


@router.post("/account/identities", response_class=HTMLResponse)
async def link_identity(
    request: Request, caller: FormCaller, provider: ProviderDep, database: DatabaseDep
) -> Response:
    """Send somebody who is signed in to the provider, to link what they are there."""
    return await _leave(request, provider, database, "/account", caller)


async def _leave(
    request: Request, provider: Provider, database: Database, after: str, caller: Caller | None
) -> Response:
    def begin() -> tuple[service.SignIn, str]:
        with database.write() as session:
            return service.begin(session, after, caller.account if caller is not None else None)

    row, key = await run_in_threadpool(begin)
    try:
        address = await provider.address(state=row.state, nonce=row.nonce, verifier=row.verifier)
    except NirvanaError as error:
        return _refuse(request, error)
    return _with_cookie(request, RedirectResponse(address, 303), key)


class Answer(RequestModel):
    """What a provider sends a visitor back with; members that say nothing here are taken, too."""

    code: Answered = ""
    state: Answered = ""
    iss: Answered = ""
    error: Answered = ""
    error_description: Answered = ""
    error_uri: Answered = ""
    session_state: Answered = ""
    scope: Answered = ""
    authuser: Answered = ""
    hd: Answered = ""
    prompt: Answered = ""


@router.get("/sign-in/oidc/callback", response_class=HTMLResponse)
async def finish_sign_in(
    request: Request,
    answer: Annotated[Answer, Query()],
    caller: SignedIn,
    provider: ProviderDep,
    database: DatabaseDep,
    settings: SettingsDep,
) -> Response:
    """Take a visitor back from the provider."""
    try:
        row = await run_in_threadpool(_take, database, request.cookies.get(COOKIE, ""), answer)
        _check(answer, provider)
        subject = await provider.redeem(answer.code, nonce=row.nonce, verifier=row.verifier)
        if row.account_id is not None:
            return await run_in_threadpool(_link, request, database, row, caller, subject)
        return await run_in_threadpool(_enter, request, database, settings, row, subject)
    except NirvanaError as error:
        return _refuse(request, error)


def _take(database: Database, key: str, answer: Answer) -> service.SignIn:
    with database.write() as session:
        return service.take(session, key, answer.state)


def _check(answer: Answer, provider: Provider) -> None:
    """Refuse what is no answer, or another provider's (RFC 9207). Raises: Forbidden."""
    if answer.iss not in ("", provider.issuer):
        raise Forbidden(f"The answer is not from {provider.name}.")
    if answer.error or not answer.code:
        said = answer.error[:100] if answer.error.isprintable() else ""
        raise Forbidden(f"{provider.name} has signed nobody in: {said or 'it says nothing more'}.")


def _link(
    request: Request, database: Database, row: service.SignIn, caller: Caller | None, subject: str
) -> Response:
    settings: Settings = request.app.state.settings
    if caller is None or caller.account.id != row.account_id:
        raise Forbidden("You are not signed in any more as who wanted to link this. Sign in and try again.")
    with database.write() as session:
        service.link(session, caller.account, settings.oidc_issuer, subject)
    return _forget(RedirectResponse("/account", 303))


def _enter(
    request: Request, database: Database, settings: Settings, row: service.SignIn, subject: str
) -> Response:
    """Begin a session of the account that the subject signs in to, or ask for the name of a new one."""
    with database.write() as session:
        account = service.find_identity(session, settings.oidc_issuer, subject)
        if account is not None:
            secret = begin_session(session, account)[1]
            return _forget(enter(request, secret, row.after))
        if settings.signup == "closed":
            raise Forbidden("You have no account here, and this service makes none for strangers.")
        key = service.wait_for_name(session, subject, row.after)
    return _with_cookie(request, RedirectResponse(f"{PATH}/name", 303), key)


@router.get("/sign-in/oidc/name", response_class=HTMLResponse)
def name_form(request: Request, _: SignedIn, provider: ProviderDep) -> HTMLResponse:
    """The form to name a new account by."""
    return render(request, "name.html", {"provider": provider.name, "name": "", "problem": None})


@router.post("/sign-in/oidc/name", response_class=HTMLResponse)
def name_account_page(
    request: Request, provider: ProviderDep, database: DatabaseDep, settings: SettingsDep, name: Text = ""
) -> Response:
    """Make the account of whoever has signed in at the provider."""
    try:
        with database.write() as session:
            make = partial(service.name_account, session, settings, request.cookies.get(COOKIE, ""))
            account, after = make(name, site_of(request))
            secret = begin_session(session, account)[1]
    except NirvanaError as error:
        context = {"provider": provider.name, "name": name, "problem": error.detail}
        return render(request, "name.html", context, 422)
    return _forget(enter(request, secret, after))


@router.post("/account/identities/{identity_id}/unlink", response_class=HTMLResponse)
def unlink_identity(
    request: Request, identity_id: RowId, caller: FormCaller, database: DatabaseDep
) -> Response:
    """Let an identity sign in here no more."""
    try:
        with database.write() as session:
            service.unlink(session, caller, identity_id)
    except NirvanaError as error:
        with database.read() as session:
            return show_account(request, caller, session, problem=error.detail, status=422)
    return RedirectResponse("/account", 303)


def _refuse(request: Request, error: NirvanaError) -> Response:
    status = 503 if isinstance(error, Unavailable) else 403
    context = {"name": "", "problem": error.detail, "after": "/account"}
    return _forget(render(request, "sign-in.html", context, status))


def _with_cookie(request: Request, answer: Response, key: str) -> Response:
    life = int(service.LIFE.total_seconds())
    answer.set_cookie(
        COOKIE, key, max_age=life, path=PATH, httponly=True, samesite="lax", secure=is_encrypted(request)
    )
    return answer


def _forget(answer: Response) -> Response:
    answer.delete_cookie(COOKIE, path=PATH)
    return answer
