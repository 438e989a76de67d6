"""Bodies of accounts and tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from app.accounts.service import FIRST_SCOPES
from app.db import utc_now
from app.schemas import Instant, Plain, RequestModel, ResponseModel, example

_TOKEN = {
    "id": 1,
    "name": "laptop",
    "scopes": ["publish", "read"],
    "created_at": "2026-11-21T09:00:00Z",
    "expires_at": None,
    "last_used_at": None,
    "names": None,
}
_SECRET = "nvn_" + "x" * 43
_PASSWORD = "correct horse battery"
Password = Annotated[Plain, Field(max_length=1000)]
Secret = Annotated[Plain, Field(max_length=200)]
Pattern = Annotated[str, Field(pattern=r"^([a-z0-9-]{1,39}/)?[a-z0-9._?*-]+$", max_length=140)]
"""A listing's name in which `*` stands for any characters and `?` for one, with its owner's before it where
that is an organisation."""


class NewAccount(RequestModel):
    """An account to make."""

    model_config = RequestModel.model_config | example(name="ada")
    name: Plain
    password: Password | None = None
    """To sign in by in a browser; null: by tokens alone."""


class SignIn(RequestModel):
    """An account's name and password."""

    model_config = RequestModel.model_config | example(name="ada", password=_PASSWORD)
    name: Plain
    password: Password


class NewPassword(RequestModel):
    """A new password for the caller's account."""

    model_config = RequestModel.model_config | example(password=_PASSWORD, old_password=_PASSWORD)
    password: Password
    old_password: Password | None = None
    """Needed where the account has one."""


class Secrets(RequestModel):
    """Secrets that were found where they should not be."""

    model_config = RequestModel.model_config | example(secrets=[_SECRET])
    secrets: list[Secret] = Field(min_length=1, max_length=1000)


class NewToken(RequestModel):
    """A token to make."""

    model_config = RequestModel.model_config | example(
        name="laptop", scopes=["read", "publish"], expires_in_seconds=86400
    )
    name: Annotated[Plain, Field(min_length=1, max_length=100)] = "token"
    scopes: list[str] = Field(default_factory=lambda: list(FIRST_SCOPES), min_length=1, max_length=10)
    expires_in_seconds: Annotated[int | None, Field(strict=True, gt=0, le=10 * 366 * 86400)] = None
    names: list[Pattern] | None = Field(default=None, min_length=1, max_length=20)
    """The listings that it may publish, change and yank; null: all that the account may."""

    @property
    def ends(self) -> Instant | None:
        """The end of the token; None: it has none."""
        seconds = self.expires_in_seconds
        return None if seconds is None else utc_now() + timedelta(seconds=seconds)


class TokenResponse(ResponseModel):
    """A token without its secret."""

    model_config = ResponseModel.model_config | example(**_TOKEN)
    id: int
    name: str
    scopes: list[str]
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Instant | None
    names: list[str] | None


class TokenWithSecret(TokenResponse):
    """A new token: its secret is shown this once."""

    model_config = ResponseModel.model_config | example(**_TOKEN, secret=_SECRET)
    secret: str


class TokenPage(ResponseModel):
    """The caller's tokens."""

    model_config = ResponseModel.model_config | example(items=[_TOKEN], next_cursor=None)
    items: list[TokenResponse]
    next_cursor: str | None = None


class AccountResponse(ResponseModel):
    """An account."""

    model_config = ResponseModel.model_config | example(name="ada", created_at="2026-11-21T09:00:00Z")
    name: str
    created_at: Instant


class AccountWithToken(AccountResponse):
    """A new account with its first token."""

    model_config = ResponseModel.model_config | example(
        name="ada", created_at="2026-11-21T09:00:00Z", token=_TOKEN | {"secret": _SECRET}
    )
    token: TokenWithSecret


class OwnMembership(ResponseModel):
    """An organisation that the caller is a member of, or is invited to."""

    model_config = ResponseModel.model_config | example(organisation="lab", role="writer")
    organisation: str
    role: Literal["reader", "writer", "owner"]


class Identity(ResponseModel):
    """The caller, and the token or session that they call with."""

    account: str
    token: TokenResponse


class WhoAmI(Identity):
    """The caller, the token or session that they call with, and their organisations."""

    model_config = ResponseModel.model_config | example(
        account="ada", token=_TOKEN, organisations=[{"organisation": "lab", "role": "owner"}], invitations=[]
    )
    organisations: list[OwnMembership]
    invitations: list[OwnMembership]
    """Not answered yet; the newest 100."""


class SessionResponse(Identity):
    """A session that began: the cookie has its secret."""

    model_config = ResponseModel.model_config | example(account="ada", token=_TOKEN, csrf_token="0" * 64)
    csrf_token: str
    """To be sent as X-CSRF-Token with every request that is no GET."""
