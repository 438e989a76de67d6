"""Pages of accounts: sign up, sign in, and one's own tokens. They work without script."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.accounts import service, sessions
from app.accounts.models import SCOPES
from app.accounts.oidc.service import list_identities
from app.accounts.organisations.service import list_invitations, list_memberships
from app.accounts.routes import grant_token, keep_session, password_line, refuse_other_sites
from app.accounts.schemas import NewToken
from app.accounts.service import Caller
from app.addresses import site_of
from app.db import Database
from app.dependencies import COOKIE, DatabaseDep, RowId, Sender, SessionDep, SettingsDep
from app.pages import render
from app.problems import validation_error
from app.settings import Settings
from nirvana.errors import Forbidden, NirvanaError

router = APIRouter(dependencies=[Depends(refuse_other_sites)])
Text = Annotated[str, Form(max_length=1000)]
DAY = 86_400


async def find_signed_in(request: Request, sender: Sender) -> Caller | None:
    """Return who is signed in by this browser, for the header of every page."""
    caller = sender if sender is not None and sender.token.kind == "session" else None
    request.state.signed_in = caller.account.name if caller is not None else None
    return caller


SignedIn = Annotated[Caller | None, Depends(find_signed_in)]


@router.get("/sign-in", response_class=HTMLResponse)
def sign_in_form(request: Request, _: SignedIn, after: str = "/account") -> HTMLResponse:
    """The form to sign in by."""
    return render(request, "sign-in.html", {"name": "", "problem": None, "after": local_path(after)})


@router.post("/sign-in", response_class=HTMLResponse)
async def sign_in_page(
    request: Request, database: DatabaseDep, name: Text = "", password: Text = "", after: Text = "/account"
) -> Response:
    """Sign in, and go on to where the visitor came from."""
    try:
        secret = await _begin(request, database, name, password)
    except NirvanaError as error:
        context = {"name": name, "problem": error.detail, "after": local_path(after)}
        return render(request, "sign-in.html", context, 422)
    return enter(request, secret, local_path(after))


@router.get("/sign-up", response_class=HTMLResponse)
def sign_up_form(request: Request, _: SignedIn, settings: SettingsDep) -> HTMLResponse:
    """The form to make an account by."""
    context = {"name": "", "problem": None, "key": None, "is_open": settings.signup == "open"}
    return render(request, "sign-up.html", context)


@router.get("/setup", response_class=HTMLResponse)
def setup_page(request: Request, _: SignedIn, key: str = "") -> HTMLResponse:
    """The form to make the first administrator's account by, for whoever has the link of the console."""
    return render(request, "sign-up.html", {"name": "", "problem": None, "key": key, "is_open": True})


@router.post("/sign-up", response_class=HTMLResponse)
async def sign_up_page(
    request: Request,
    settings: SettingsDep,
    database: DatabaseDep,
    name: Text = "",
    password: Text = "",
    key: Text = "",
) -> Response:
    """Make an account and sign in; with the key of a setup link, an administrator's."""
    try:
        network = site_of(request)
        make = partial(_make_account, database, settings, name, password, key=key, network=network)
        secret = await password_line(request).run(make)
    except NirvanaError as error:
        is_open = bool(key) or settings.signup == "open"
        context = {"name": name, "problem": error.detail, "key": key or None, "is_open": is_open}
        return render(request, "sign-up.html", context, 422)
    return enter(request, secret, "/account")


def _make_account(
    database: Database, settings: Settings, name: str, password: str, *, key: str, network: str | None
) -> str:
    """Add the account and return the secret of its first session."""
    hashed = sessions.hash_password(name, password)
    with database.write() as session:
        if key:
            account = service.create_account(session, name)
            account.password_hash = hashed
            sessions.use_setup_link(session, key, account)
        else:
            account = service.sign_up(session, settings, name, hashed, network=network)
        return sessions.begin_session(session, account)[1]


def signed_in(
    request: Request, caller: SignedIn, csrf_token: Annotated[str, Form(max_length=200)] = ""
) -> Caller:
    """Return who sends one of our forms. Raises: Forbidden."""
    secret = request.cookies.get(COOKIE, "")
    if caller is None or not sessions.is_from_our_page(secret, csrf_token):
        raise Forbidden("The session has ended, or the form is not from here. Sign in and try again.")
    return caller


FormCaller = Annotated[Caller, Depends(signed_in)]


@router.post("/sign-out")
def sign_out(caller: FormCaller, session: SessionDep) -> Response:
    """End the session."""
    service.revoke_token(session, caller, caller.token.id)
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/account", response_class=HTMLResponse)
def account_page(request: Request, caller: SignedIn, session: SessionDep) -> Response:
    """Your tokens, your organisations, your password."""
    if caller is None:
        return RedirectResponse(f"/sign-in?{urlencode({'after': '/account'})}", 303)
    return show_account(request, caller, session)


@router.post("/account/tokens", response_class=HTMLResponse)
def create_token(
    request: Request,
    caller: FormCaller,
    session: SessionDep,
    name: Text = "",
    scopes: Annotated[list[str], Form(max_length=10)] = [],  # noqa: B006  (FastAPI copies it)
    days: Text = "",
    names: Text = "",
) -> HTMLResponse:
    """Make a token, and show its secret this once."""
    try:
        secret = _create_token(session, caller, name=name, scopes=scopes, days=days, names=names)
    except NirvanaError as error:
        return show_account(request, caller, session, problem=error.detail, status=422)
    return show_account(request, caller, session, secret=secret)


def _create_token(
    session: Session, caller: Caller, *, name: str, scopes: list[str], days: str, names: str
) -> str:
    fields: dict[str, object] = {"name": name, "scopes": scopes, "names": names.split() or None}
    if days.strip():
        fields["expires_in_seconds"] = int(days) * DAY if days.strip().isdecimal() else days
    try:
        wanted = NewToken.model_validate(fields)
    except ValidationError as error:
        raise validation_error(error) from None
    return grant_token(session, caller, wanted)[1]


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(token_id: RowId, caller: FormCaller, session: SessionDep) -> Response:
    """End a token."""
    service.revoke_token(session, caller, token_id)
    return RedirectResponse("/account", 303)


@router.post("/account/password", response_class=HTMLResponse)
async def change_password_page(
    request: Request,
    caller: FormCaller,
    database: DatabaseDep,
    old_password: Text = "",
    password: Text = "",
) -> HTMLResponse:
    """Change the password; other browsers are signed out."""
    change = partial(sessions.change_password, database, caller, password, old_password=old_password)
    problem, status = None, 200
    try:
        await password_line(request).run(change)
    except NirvanaError as error:
        problem, status = error.detail, 422
    with database.read() as session:
        done = None if problem else "The password is changed; other browsers are signed out."
        return show_account(request, caller, session, problem=problem, done=done, status=status)


async def _begin(request: Request, database: Database, name: str, password: str) -> str:
    """Sign in and return the session's secret."""
    begin = partial(sessions.sign_in, database, name, password)
    return (await password_line(request).run(begin))[1]


def enter(request: Request, secret: str, after: str) -> Response:
    """Begin a session in the browser, and go on."""
    answer = RedirectResponse(after, 303)
    keep_session(request, answer, secret)
    return answer


def local_path(address: str) -> str:
    """Return the address where it is a path of this service, else /account: nobody is sent elsewhere."""
    parts = urlsplit(address)
    is_ours = not parts.scheme and not parts.netloc and address.startswith("/")
    return address if is_ours and not address.startswith(("//", "/\\")) else "/account"


def show_account(
    request: Request,
    caller: Caller,
    session: Session,
    *,
    status: int = 200,
    secret: str | None = None,
    problem: str | None = None,
    done: str | None = None,
) -> HTMLResponse:
    """Render the page of an account, with a new secret, or what is wrong, or done."""
    context = {
        "caller": caller,
        "organisations": list_memberships(session, caller.account),
        "invitations": list_invitations(session, caller.account),
        "identities": list_identities(session, caller.account),
        "tokens": service.list_tokens(session, caller.account),
        "scopes": [scope for scope in SCOPES if scope in caller.token.scopes],
        "csrf_token": sessions.csrf_token(request.cookies[COOKIE]),
        "secret": secret,
        "problem": problem,
        "done": done,
    }
    return render(request, "account.html", context, status, {"Cache-Control": "no-store"})
