"""REST routes of accounts and tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.accounts import service
from app.accounts.models import Token
from app.accounts.schemas import (
    AccountWithToken,
    NewAccount,
    NewToken,
    TokenPage,
    TokenResponse,
    TokenWithSecret,
    WhoAmI,
)
from app.addresses import site_of
from app.dependencies import AnyCaller, SessionDep, SettingsDep
from app.schemas import problems
from nirvana.errors import Forbidden

router = APIRouter(tags=["accounts"])
TokenId = Annotated[int, Path(ge=1, lt=2**53)]


@router.post("/accounts", status_code=201, operation_id="create_account", responses=problems(403, 409, 422))
def create_account(
    body: NewAccount, session: SessionDep, settings: SettingsDep, request: Request
) -> AccountWithToken:
    """Make an account and its first token, whose secret is shown this once."""
    if settings.signup == "closed":
        raise Forbidden("This service makes no accounts for strangers; ask its operator for one.")
    account = service.create_account(session, body.name, site_of(request))
    made = service.create_token(session, account, name="first", scopes=service.FIRST_SCOPES)
    return AccountWithToken(name=account.name, created_at=account.created_at, token=_with_secret(*made))


@router.post("/tokens", status_code=201, operation_id="create_token", responses=problems(401, 403, 422, 429))
def create_token(body: NewToken, caller: AnyCaller, session: SessionDep) -> TokenWithSecret:
    """Make a token that may do no more than the one you call with. Its secret is shown this once."""
    made = service.create_token(
        session, caller.account, name=body.name, scopes=body.scopes, expires_at=body.ends, granted_by=caller
    )
    return _with_secret(*made)


@router.get("/tokens", operation_id="list_tokens", responses=problems(401))
def list_tokens(caller: AnyCaller, session: SessionDep) -> TokenPage:
    """Your tokens, newest first, without their secrets."""
    rows = service.list_tokens(session, caller.account)
    return TokenPage(items=[TokenResponse.model_validate(row) for row in rows])


@router.delete(
    "/tokens/{token_id}", status_code=204, operation_id="delete_token", responses=problems(401, 403, 404)
)
def delete_token(token_id: TokenId, caller: AnyCaller, session: SessionDep) -> Response:
    """Revoke one of your tokens."""
    service.revoke_token(session, caller, token_id)
    return Response(status_code=204)


@router.get("/whoami", operation_id="get_whoami", responses=problems(401))
def whoami(caller: AnyCaller) -> WhoAmI:
    """Your account, and the scopes of your token."""
    return WhoAmI(account=caller.account.name, token=TokenResponse.model_validate(caller.token))


def _with_secret(token: Token, secret: str) -> TokenWithSecret:
    return TokenWithSecret(**TokenResponse.model_validate(token).model_dump(), secret=secret)
