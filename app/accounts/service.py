"""Rules of accounts and tokens.

A secret is 256 random bits, so one SHA-256 of it is enough: there is nothing to guess, and the slow hashes
that guard passwords would cost every request some 50 ms for no gain.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from sqlalchemy import ColumnElement, bindparam, func, select, update
from sqlalchemy.orm import Session

from app.accounts.models import SCOPES, Account, Token
from app.accounts.names import check_account_name, refuse_reserved, skeleton
from app.db import unique, utc_now
from app.settings import Settings
from nirvana.errors import (
    Forbidden,
    Invalid,
    MissingScope,
    NameTaken,
    NotFound,
    Problem,
    QuotaExceeded,
    Unauthenticated,
)

PREFIX = "nvn_"
FIRST_SCOPES = ("read", "publish", "yank", "job")
MAX_TOKENS = 100
USED_EVERY = timedelta(minutes=10)
_SELECT_BEARER = (  # of every request with a token: built once
    select(Account, Token)
    .join(Token, Token.account_id == Account.id)
    .where(Token.secret_sha256 == bindparam("secret"))
)


@dataclass(frozen=True)
class Caller:
    """The sender of a request, and the token that says what they may do."""

    account: Account
    token: Token

    def need(self, scope: str) -> None:
        """Check that the token has a scope. Raises: MissingScope."""
        if scope not in self.token.scopes:
            detail = f"This needs the scope {scope!r}; the token has {sorted(self.token.scopes)}."
            raise MissingScope(detail, scope=scope)

    def need_name(self, owner: str, name: str) -> None:
        """Check that the token may write the listing `owner/name`. Raises: Forbidden."""
        check_pattern(self.account, self.token.names, owner, name)

    @property
    def is_whole(self) -> bool:
        """True for a token, or a session, that may do whatever its account may."""
        return self.token.names is None and set(FIRST_SCOPES) <= set(self.token.scopes)

    def need_whole(self, purpose: str) -> None:
        """Check that the token stands for its account. Raises: Forbidden."""
        if not self.is_whole:
            raise Forbidden(
                f"{purpose} needs a token with the scopes {', '.join(FIRST_SCOPES)}, for all names."
            )


def check_pattern(account: Account, patterns: Sequence[str] | None, owner: str, name: str) -> None:
    """Check that an account's token with these patterns may write `owner/name`. A pattern without a slash is
    of the account's own names. Raises: Forbidden."""
    for pattern in patterns or ():
        head, slash, tail = pattern.rpartition("/")
        if owner == (head if slash else account.name) and fnmatchcase(name, tail):
            return
    if patterns is not None:
        shown = name if owner == account.name else f"{owner}/{name}"
        raise Forbidden(f"The token is for the names {', '.join(patterns)}, and not for {shown!r}.")


@dataclass(frozen=True)
class Person:
    """Somebody who takes turns: an account, or all new accounts of one network together (decision 12)."""

    key: str
    is_new: bool


def account_key(account: Account) -> str:
    """Return the key of the person who an account is."""
    return f"account:{account.id}"


def person_of(account: Account, settings: Settings) -> Person:
    """Return whose turn an account's job takes. An account with limits of its own is never new: somebody
    vouched for it."""
    has_own_limits = account.max_open_jobs is not None or account.max_flops_per_day is not None
    if account.network is None or has_own_limits or not is_new(account, settings):
        return Person(account_key(account), False)
    return Person(f"network:{account.network}", True)


def is_new(account: Account, settings: Settings) -> bool:
    """Tell whether an account is younger than the settings ask for."""
    return utc_now() - account.created_at < timedelta(days=settings.newcomer_days)


def forget_networks(session: Session, settings: Settings) -> None:
    """Forget which networks the accounts were made from that are not new any more."""
    latest = utc_now() - timedelta(days=settings.newcomer_days)
    old = update(Account).where(Account.network.is_not(None), Account.created_at < latest)
    session.execute(old.values(network=None))


def create_account(
    session: Session, name: str, network: str | None = None, *, by_operator: bool = False
) -> Account:
    """Add an account.

    Args:
        network: that a stranger makes it from; None: somebody whom the operator knows.
        by_operator: who may take a name that is kept for the registry.

    Raises:
        InvalidName, NameTaken: also of a name that looks like another account's.
    """
    check_account_name(name)
    if not by_operator:
        refuse_reserved(name)
    shape = skeleton(name)
    other = session.scalar(select(Account.name).where(Account.skeleton == shape))  # for the sentence alone
    looks = "" if other in (None, name) else f": it looks like {other!r}"
    account = Account(name=name, skeleton=shape, network=network)
    session.add(account)
    error = NameTaken(f"The account name {name!r} is taken{looks}.")
    taken = {"uq_account_name": error, "uq_account_skeleton": error}
    with unique(session, taken):
        return account


def sign_up(
    session: Session, settings: Settings, name: str, password_hash: str | None, *, network: str | None
) -> Account:
    """Add a stranger's account, made from a network.

    Raises:
        Forbidden: signup is closed.
        InvalidName, NameTaken.
    """
    if settings.signup == "closed":
        raise Forbidden("This service makes no accounts for strangers; ask its operator for one.")
    account = create_account(session, name, network)
    account.password_hash = password_hash
    return account


def check_storage(settings: Settings, account: Account, size_bytes: int) -> None:
    """Refuse a file that an account has no room for. Raises: QuotaExceeded."""
    own, stored = account.max_stored_bytes, account.stored_bytes
    most = settings.max_stored_bytes_per_account if own is None else own
    if stored + size_bytes > most:
        detail = (
            f"Your {account.tickets} tickets and your tasks have {stored} bytes and this one {size_bytes}"
        )
        raise QuotaExceeded(f"{detail}, expected at most {most} together.", limit_bytes=most)


def charge_storage(session: Session, account_id: int, size_bytes: int, *, tickets: int = 1) -> None:
    """Count listings that an account has published, in its own name or another, and the size of files."""
    more = {"tickets": Account.tickets + tickets, "stored_bytes": Account.stored_bytes + size_bytes}
    session.execute(update(Account).where(Account.id == account_id).values(more))


def find_account(session: Session, name: str) -> Account | None:
    """Return the account of that name, or None."""
    return session.scalars(select(Account).where(Account.name == name)).one_or_none()


def create_token(
    session: Session,
    account: Account,
    *,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
    granted_by: Caller | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Token, str]:
    """Add a token and return it with its secret, which is nowhere else from then on.

    Args:
        name: what the token is for, to its owner.
        scopes: what it allows; none that `granted_by` lacks.
        expires_at: when it ends; None: never.
        granted_by: the caller who asks; None: the service itself.
        names: patterns of the listings that it may write (`*`, `?`); None: those of `granted_by`.

    Raises:
        Invalid: an unknown scope, or an end in the past.
        Forbidden: more than the caller's own token may do, or other names; or a token of an organisation.
        QuotaExceeded: the account has MAX_TOKENS tokens.
    """
    _check_scopes(scopes, expires_at)
    if granted_by is not None:
        expires_at = _within(granted_by.token, scopes, expires_at)
        names = _names_within(granted_by.token, names)
    _check_quota(session, account)
    token = Token(name=name, scopes=sorted(set(scopes)), expires_at=expires_at, names=_as_list(names))
    return token, add_secret(session, account, token)


def add_secret(session: Session, account: Account, token: Token) -> str:
    """Add a token or a session of the account and return its secret. Raises: Forbidden: an organisation's."""
    if account.is_organisation:
        raise Forbidden(
            f"{account.name!r} is an organisation: its members act in its name, with their tokens."
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    token.account_id, token.secret_sha256 = account.id, hash_secret(secret)
    session.add(token)
    session.flush()
    return secret


def _check_quota(session: Session, account: Account) -> None:
    living = session.scalar(select(func.count()).where(*_living_tokens(account))) or 0
    if living >= MAX_TOKENS:
        raise QuotaExceeded(f"The account has {living} tokens, and no more than {MAX_TOKENS}; revoke one.")


def _check_scopes(scopes: Sequence[str], expires_at: datetime | None) -> None:
    problems = [
        Problem(f"/scopes/{i}", "unknown-scope", f"{scope!r} is none of {', '.join(SCOPES)}")
        for i, scope in enumerate(scopes)
        if scope not in SCOPES
    ]
    if expires_at is not None and expires_at <= utc_now():
        problems.append(Problem("/expires_at", "past", f"{expires_at.isoformat()} is not in the future"))
    if problems:
        raise Invalid(f"Not a token: {problems[0].detail}.", errors=problems)


def _within(token: Token, scopes: Sequence[str], expires_at: datetime | None) -> datetime | None:
    """Return the end of a new token that `token` grants: never more scopes and never later than its own."""
    more = sorted(set(scopes) - set(token.scopes))
    if more:
        raise Forbidden(f"A token cannot grant what it does not have itself: {', '.join(more)}.")
    if token.kind == "session":
        return expires_at  # whoever signs in is the account
    ends = [end for end in (expires_at, token.expires_at) if end is not None]
    return min(ends, default=None)


def _names_within(token: Token, names: Sequence[str] | None) -> Sequence[str] | None:
    """Return the names of a new token that `token` grants: its own where it has some, or fewer of them."""
    if token.names is None or names is None:
        return names if token.names is None else token.names
    more = sorted(set(names) - set(token.names))
    if more:
        raise Forbidden(f"A token for {', '.join(token.names)} cannot grant {', '.join(more)}.")
    return names


def _as_list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def authenticate(session: Session, secret: str, kind: str = "token") -> Caller:
    """Return the bearer of that secret, of a token or of a session. Raises: Unauthenticated."""
    row = session.execute(_SELECT_BEARER, {"secret": hash_secret(secret)}).one_or_none()
    if row is None or row[1].revoked_at is not None or row[1].kind != kind:
        raise Unauthenticated("The token is not known here, or was revoked.")
    account, token = row
    if token.expires_at is not None and token.expires_at <= utc_now():
        raise Unauthenticated(f"The token ended on {token.expires_at.isoformat()}.")
    return Caller(account, token)


def is_use_due(token: Token) -> bool:
    """Tell whether it is time to write down again that the token is used."""
    now = utc_now()  # a use in the future is of a clock that was set back since
    return token.last_used_at is None or not now - USED_EVERY <= token.last_used_at <= now + USED_EVERY


def note_use(session: Session, token_id: int) -> None:
    """Write down that a token is used now."""
    session.execute(update(Token).where(Token.id == token_id).values(last_used_at=utc_now()))


def list_tokens(session: Session, account: Account) -> list[Token]:
    """Return the account's tokens that are not revoked, newest first."""
    return list(session.scalars(select(Token).where(*_living_tokens(account)).order_by(Token.id.desc())))


def _living_tokens(account: Account) -> tuple[ColumnElement[bool], ...]:
    return Token.account_id == account.id, Token.kind == "token", Token.revoked_at.is_(None)


def revoke_token(session: Session, caller: Caller, token_id: int) -> None:
    """End a token of the caller's account.

    Raises:
        NotFound: there is no such token.
        Forbidden: it may do more than the caller's own.
    """
    token = session.get(Token, token_id)
    if token is None or token.account_id != caller.account.id or token.revoked_at is not None:
        raise NotFound(f"You have no token {token_id}.")
    more = sorted(set(token.scopes) - set(caller.token.scopes))
    if more:
        raise Forbidden(f"A token cannot end one that may do more: {', '.join(more)}.")
    token.revoked_at = utc_now()


def revoke_secrets(session: Session, found: Sequence[str]) -> None:
    """End whatever of these secrets is a token or a session here: whoever found one may end it.

    The answer is the same for secrets that are none, so nobody learns which are.
    """
    hashes = [hash_secret(secret) for secret in found]
    living = Token.secret_sha256.in_(hashes), Token.revoked_at.is_(None)
    session.execute(update(Token).where(*living).values(revoked_at=utc_now()))


def hash_secret(secret: str) -> str:
    """Return the SHA-256 by which a secret is kept, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()
