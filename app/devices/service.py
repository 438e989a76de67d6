"""Rules of device codes. Reference: RFC 8628, the device authorization grant.

A command line asks for a code, its user types the short half of it into a page where she is signed in, and
the command line fetches its token, once, with the long half, which no page and no address ever shows.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, ForeignKey, String, UniqueConstraint, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.accounts.models import Account, Token
from app.accounts.service import Caller, create_token, hash_secret
from app.db import Base, Json, insert_if_absent, one_of, utc_now
from nirvana.errors import Forbidden, NotFound, Unavailable

STATES = ("asked", "granted", "denied")
LIFE = timedelta(minutes=10)
INTERVAL_SECONDS = 2
PREFIX = "nvd_"
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels: no words
HALF = 4
TRIES = 5


class DeviceCode(Base):
    """A command line that asks for a token, and what its user said in a browser.

    Attributes:
        secret_sha256: of what the command line keeps to itself and fetches its token with.
        user_code: what its user types into the page; by itself it is good for nothing but the question.
        network: that the question came from.
        account_id: of whoever answered it.
    """

    __tablename__ = "device_code"
    __table_args__ = (
        UniqueConstraint("secret_sha256"),
        UniqueConstraint("user_code"),
        one_of("state", STATES),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    user_code: Mapped[str] = mapped_column(String(9))
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[list[str]]
    network: Mapped[str | None] = mapped_column(String(50))
    state: Mapped[str] = mapped_column(String(10), default="asked")
    account_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]


def ask_for_token(session: Session, name: str, scopes: Sequence[str], network: str | None) -> tuple[str, str]:
    """Keep a question, and return the code to fetch the token with and the one to type; codes that ended are
    forgotten. Raises: Unavailable, after TRIES codes that somebody else has just now."""
    now, secret = utc_now(), PREFIX + secrets.token_urlsafe(32)
    session.execute(delete(DeviceCode).where(~_is_living(now)))
    fields: Json = {"name": name, "scopes": sorted(set(scopes)), "network": network, "state": "asked"}
    fields |= {"secret_sha256": hash_secret(secret), "created_at": now, "expires_at": now + LIFE}
    for _ in range(TRIES):
        letters = "".join(secrets.choice(LETTERS) for _ in range(2 * HALF))
        user_code = f"{letters[:HALF]}-{letters[HALF:]}"
        if insert_if_absent(session, DeviceCode, user_code=user_code, **fields):
            return secret, user_code
    raise Unavailable("Too many ask for a code right now; try again.")


def _is_living(now: datetime) -> ColumnElement[bool]:
    """Return the condition of the codes that are not over; one from the future was made by a clock that was
    wrong."""
    return (DeviceCode.expires_at > now) & (DeviceCode.expires_at <= now + LIFE)


def find_question(session: Session, typed: str) -> DeviceCode:
    """Return the open question of a code as somebody typed it. Raises: NotFound."""
    query = select(DeviceCode).where(DeviceCode.user_code == _read(typed), DeviceCode.state == "asked")
    row = session.scalars(query.where(_is_living(utc_now()))).one_or_none()
    if row is None:
        raise NotFound("There is no such code, or it is over: they are good for 10 minutes.")
    return row


def _read(typed: str) -> str:
    letters = "".join(letter for letter in typed[:100].upper() if letter in LETTERS)
    return f"{letters[:HALF]}-{letters[HALF:]}"


def answer_question(session: Session, caller: Caller, typed: str, *, is_granted: bool) -> DeviceCode:
    """Grant or deny a token of the caller's account, once.

    Raises:
        NotFound: as of `find_question`.
        Forbidden: the caller cannot grant as much.
    """
    row = find_question(session, typed)
    more = sorted(set(row.scopes) - set(caller.token.scopes))
    if is_granted and more:
        raise Forbidden(f"You cannot grant what you do not have yourself: {', '.join(more)}.")
    state = "granted" if is_granted else "denied"
    answered = update(DeviceCode).where(DeviceCode.id == row.id, DeviceCode.state == "asked")
    answered = answered.values(state=state, account_id=caller.account.id)
    if session.execute(answered.returning(DeviceCode.id)).first() is None:
        raise NotFound("Somebody has answered it already.")
    return row


def fetch_token(session: Session, secret: str) -> tuple[Token, str] | None:
    """Return the token that was granted, with its secret, once; None while nobody has answered.

    Raises:
        NotFound: no code, or one that is over or was used.
        Forbidden: it was denied.
        QuotaExceeded: the account has too many tokens.
    """
    row = session.scalars(
        select(DeviceCode).where(DeviceCode.secret_sha256 == hash_secret(secret), _is_living(utc_now()))
    ).one_or_none()
    if row is not None and row.state == "asked":
        return None
    if row is not None and row.state == "denied":
        raise Forbidden("It was denied in the browser.")
    used = delete(DeviceCode).where(DeviceCode.id == (row.id if row is not None else 0))
    if row is None or session.execute(used.returning(DeviceCode.id)).first() is None:
        raise NotFound("There is no such code, or it is over, or its token was fetched.")
    account = session.get_one(Account, row.account_id)
    return create_token(session, account, name=row.name, scopes=row.scopes)
