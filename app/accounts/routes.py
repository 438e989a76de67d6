"""REST routes of accounts and tokens."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from app.accounts import service, sessions
from app.accounts.models import Token
from app.accounts.organisations.service import list_invitations, list_memberships
from app.accounts.schemas import (
    AccountWithToken,
    NewAccount,
    NewPassword,
    NewToken,
    Secrets,
    SessionResponse,
    SignIn,
    TokenPage,
    TokenResponse,
    TokenWithSecret,
    WhoAmI,
)
from app.accounts.service import Caller
from app.addresses import site_of
from app.dependencies import COOKIE, READING, AnyCaller, DatabaseDep, RowId, SessionDep, SettingsDep
from app.limits.service import Line
from app.schemas import problems
from app.settings import Settings
from nirvana.errors import Forbidden

router = APIRouter(tags=["accounts"])


def password_line(request: Request) -> Line:
    """Return the threads that hash passwords."""
    line: Line = request.app.state.passwords
    return line


async def hash_new_password(body: NewAccount, request: Request) -> tuple[str, str | None]:
    """Return a new account's name and the hash of its password, made before any transaction begins."""
    if body.password is None:
        return body.name, None
    make = partial(sessions.hash_password, body.name, body.password)
    return body.name, await password_line(request).run(make)


NameAndHash = Annotated[tuple[str, str | None], Depends(hash_new_password)]


@router.post("/accounts", status_code=201, operation_id="create_account", responses=problems(403, 409, 422))
def create_account(
    asked: NameAndHash, session: SessionDep, settings: SettingsDep, request: Request
) -> AccountWithToken:
    """Make an account and its first token, whose secret is shown this once."""
    account = service.sign_up(session, settings, *asked, network=site_of(request))
    made = service.create_token(session, account, name="first", scopes=service.FIRST_SCOPES)
    return AccountWithToken(name=account.name, created_at=account.created_at, token=_with_secret(*made))


@router.post("/sessions", status_code=201, operation_id="create_session", responses=problems(401, 403, 422))
async def create_session(
    body: SignIn, request: Request, response: Response, database: DatabaseDep
) -> SessionResponse:
    """Sign in. The answer sets an HttpOnly cookie; send `csrf_token` with every request that writes."""
    refuse_other_sites(request)
    begin = partial(sessions.sign_in, database, body.name, body.password)
    token, secret = await password_line(request).run(begin)
    keep_session(request, response, secret)
    shown = TokenResponse.model_validate(token)
    return SessionResponse(account=body.name, token=shown, csrf_token=sessions.csrf_token(secret))


@router.delete("/sessions", status_code=204, operation_id="delete_session", responses=problems(401, 403))
def delete_session(caller: AnyCaller, session: SessionDep) -> Response:
    """Sign out: end the session that you call with."""
    if caller.token.kind != "session":
        raise Forbidden("You call with a token and no session; DELETE /tokens/{id} ends a token.")
    service.revoke_token(session, caller, caller.token.id)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE)
    return answer


@router.put("/password", status_code=204, operation_id="replace_password", responses=problems(401, 403, 422))
async def replace_password(
    body: NewPassword, caller: AnyCaller, request: Request, database: DatabaseDep
) -> Response:
    """Give your account a password to sign in by. Its other sessions end."""
    change = partial(
        sessions.change_password, database, caller, body.password, old_password=body.old_password
    )
    await password_line(request).run(change)
    return Response(status_code=204)


@router.post(
    "/credentials/revoke", status_code=204, operation_id="revoke_credentials", responses=problems(422)
)
def revoke_credentials(body: Secrets, session: SessionDep) -> Response:
    """End tokens and sessions whose secrets you found. The answer does not say which were any."""
    service.revoke_secrets(session, body.secrets)
    return Response(status_code=204)


@router.post("/tokens", status_code=201, operation_id="create_token", responses=problems(401, 403, 422, 429))
def create_token(body: NewToken, caller: AnyCaller, session: SessionDep) -> TokenWithSecret:
    """Make a token that may do no more than the one you call with. Its secret is shown this once."""
    return _with_secret(*grant_token(session, caller, body))


def grant_token(session: Session, caller: Caller, wanted: NewToken) -> tuple[Token, str]:
    """Make the token that a caller asks for. Raises: Forbidden, Invalid, QuotaExceeded."""
    return service.create_token(
        session,
        caller.account,
        name=wanted.name,
        scopes=wanted.scopes,
        expires_at=wanted.ends,
        granted_by=caller,
        names=wanted.names,
    )


@router.get("/tokens", operation_id="list_tokens", responses=problems(401))
def list_tokens(caller: AnyCaller, session: SessionDep) -> TokenPage:
    """Your tokens, newest first, without their secrets."""
    rows = service.list_tokens(session, caller.account)
    return TokenPage(items=[TokenResponse.model_validate(row) for row in rows])


@router.delete(
    "/tokens/{token_id}", status_code=204, operation_id="delete_token", responses=problems(401, 403, 404)
)
def delete_token(token_id: RowId, caller: AnyCaller, session: SessionDep) -> Response:
    """Revoke one of your tokens."""
    service.revoke_token(session, caller, token_id)
    return Response(status_code=204)


@router.get("/whoami", operation_id="get_whoami", responses=problems(401))
def whoami(caller: AnyCaller, session: SessionDep) -> WhoAmI:
    """Your account, the scopes of your token, your organisations and who invites you."""
    account = caller.account
    return WhoAmI.model_validate(
        {
            "account": account.name,
            "token": TokenResponse.model_validate(caller.token),
            "organisations": list_memberships(session, account),
            "invitations": list_invitations(session, account),
        }
    )


def _with_secret(token: Token, secret: str) -> TokenWithSecret:
    return TokenWithSecret(**TokenResponse.model_validate(token).model_dump(), secret=secret)


def refuse_other_sites(request: Request) -> None:
    """Check that no other site's page sends this form for its visitor; a link there is as good as any.

    Raises:
        Forbidden.
    """
    if request.method in READING:
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    settings: Settings = request.app.state.settings
    ours = {f"{request.url.scheme}://{request.url.netloc}", settings.public_url}
    if site not in ("none", "same-origin") or (origin is not None and origin not in ours):
        raise Forbidden(f"This is for pages of {settings.public_url} alone.")


def keep_session(request: Request, response: Response, secret: str) -> None:
    """Give the browser the session's cookie, which no script reads and no other site sends."""
    life, is_secure = int(sessions.SESSION_LIFE.total_seconds()), is_encrypted(request)
    response.set_cookie(COOKIE, secret, max_age=life, httponly=True, samesite="lax", secure=is_secure)


def is_encrypted(request: Request) -> bool:
    """Tell whether browsers reach the service by https."""
    settings: Settings = request.app.state.settings
    return "https" in (request.url.scheme, settings.public_url.partition(":")[0])
