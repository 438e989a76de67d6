"""Rules of browsers' sessions: passwords, sign-in, and the link that makes the first administrator.

A session is a token of the kind `session` whose secret is in an HttpOnly cookie. A second secret, which
only our own pages know (`csrf_token`), proves that a form or a script of theirs sent it along.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta
from functools import cache

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.accounts.models import SCOPES, Account, SetupLink, Token
from app.accounts.service import FIRST_SCOPES, Caller, add_secret, find_account, hash_secret
from app.db import Database, utc_now
from nirvana.errors import Forbidden, Invalid, Problem, Unauthenticated

SESSION_LIFE = timedelta(days=14)
LINK_LIFE = timedelta(hours=24)
LEAST_CHARACTERS, MOST_CHARACTERS = 10, 200


def hash_password(name: str, password: str) -> str:
    """Return the Argon2id hash of a new password: slow, so outside any transaction. Raises: Invalid."""
    problem = _weakness(name, password)
    if problem:
        detail = f"The password {problem}."
        raise Invalid(detail, errors=[Problem("/password", "weak-password", detail)])
    return _hasher().hash(password)


def set_password(session: Session, account: Account, hashed: str, *, keep: Token | None = None) -> None:
    """Give the account a password, and end its sessions but `keep`."""
    account.password_hash = hashed
    others = Token.account_id == account.id, Token.kind == "session", Token.revoked_at.is_(None)
    kept = Token.id != (keep.id if keep is not None else 0)
    session.execute(update(Token).where(*others, kept).values(revoked_at=utc_now()))


def _weakness(name: str, password: str) -> str | None:
    if len(password) < LEAST_CHARACTERS:
        return f"has {len(password)} characters, expected at least {LEAST_CHARACTERS}"
    if len(password) > MOST_CHARACTERS:
        return f"has {len(password)} characters, expected at most {MOST_CHARACTERS}"
    if len(set(password)) < 5:
        return "has fewer than 5 different characters"
    if password.lower().replace(name, "") == "" or (len(name) >= 5 and name in password.lower()):
        return "has the account's name in it"
    return None


def change_password(database: Database, caller: Caller, password: str, *, old_password: str | None) -> None:
    """Give the caller's account a new password, for the old one where it has any.

    Raises:
        Unauthenticated: `old_password` is wrong, or missing.
        Forbidden: a first password, by a token that may do less than one.
        Invalid: the new password is weak.
    """
    kept = _read_hash(database, caller.account.name)
    if kept is None:
        caller.need_whole("A first password")
    if kept is not None and not _hasher().verify((old_password or "")[: MOST_CHARACTERS + 1], kept):
        raise Unauthenticated("`old_password` is wrong.")
    hashed = hash_password(caller.account.name, password)
    with database.write() as session:
        account = session.get_one(Account, caller.account.id)
        if account.password_hash != kept:
            raise Unauthenticated("The password was changed meanwhile.")
        set_password(session, account, hashed, keep=caller.token)


def sign_in(database: Database, name: str, password: str) -> tuple[Token, str]:
    """Return a new session and its secret. The slow comparison holds no lock.

    Raises:
        Unauthenticated: the same for whatever is wrong, and after as long.
    """
    kept = _read_hash(database, name)
    fits = _hasher().verify(password[: MOST_CHARACTERS + 1], kept or _dummy())
    with database.write() as session:
        account = find_account(session, name)
        if account is None or kept is None or not fits or account.password_hash != kept:
            raise Unauthenticated("The name or the password is wrong.")
        return begin_session(session, account)


def _read_hash(database: Database, name: str) -> str | None:
    with database.read() as session:
        account = find_account(session, name)
        return account.password_hash if account is not None else None


def begin_session(session: Session, account: Account) -> tuple[Token, str]:
    """Add a session of the account and return it with its secret; those that ended are forgotten."""
    now = utc_now()
    ended = Token.account_id == account.id, Token.kind == "session", Token.expires_at < now
    session.execute(delete(Token).where(*ended))
    scopes = SCOPES if account.is_admin else FIRST_SCOPES
    token = Token(name="browser", kind="session", scopes=sorted(scopes), expires_at=now + SESSION_LIFE)
    return token, add_secret(session, account, token)


def csrf_token(secret: str) -> str:
    """Return what a page of this session sends along with its forms: as hard to guess as the secret."""
    return hmac.new(secret.encode(), b"nirvana csrf", hashlib.sha256).hexdigest()


def is_from_our_page(secret: str, sent: str | None) -> bool:
    """Tell whether `sent` is the session's `csrf_token`."""
    return hmac.compare_digest(csrf_token(secret).encode(), (sent or "").encode())


def make_setup_link(session: Session) -> str | None:
    """Return the key of a link by which somebody becomes the first administrator; None where there is one."""
    if session.scalars(select(Account.id).where(Account.is_admin).limit(1)).first() is not None:
        return None
    session.execute(delete(SetupLink))
    key = secrets.token_urlsafe(24)
    session.add(SetupLink(key_sha256=hash_secret(key), expires_at=utc_now() + LINK_LIFE))
    return key


def use_setup_link(session: Session, key: str, account: Account) -> None:
    """Make the account an administrator; the link is good for nothing then. Raises: Forbidden."""
    used = delete(SetupLink).where(SetupLink.key_sha256 == hash_secret(key), SetupLink.expires_at > utc_now())
    if session.execute(used.returning(SetupLink.id)).first() is None:
        raise Forbidden("The link was used, replaced by a newer one, or is older than a day.")
    account.is_admin = True


@cache
def _hasher() -> PasswordHash:
    """Return Argon2id at the least cost that OWASP's cheat sheet names: 19 MiB, two passes."""
    return PasswordHash([Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)])


@cache
def _dummy() -> str:
    """Return a hash to compare with where there is no account, so that both take as long."""
    return _hasher().hash(secrets.token_urlsafe(16))
