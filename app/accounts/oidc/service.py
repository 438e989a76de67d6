"""Rules of sign-ins at a provider: each belongs to the browser that began it, and is good once.

An account is found by the issuer and its name for somebody (`sub`), and by nothing else: an e-mail address
says who may read a mailbox, not who somebody is.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, String, UniqueConstraint, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.accounts.models import Account
from app.accounts.service import Caller, hash_secret, sign_up
from app.db import Base, unique, utc_now
from app.settings import Settings
from nirvana.errors import Conflict, Forbidden, NotFound

LIFE = timedelta(minutes=15)
STALE = "This sign-in was begun in another browser, was used, or took longer than 15 minutes. Begin again."


class Identity(Base):
    """Somebody's name at a provider, by which they sign in to an account."""

    __tablename__ = "identity"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    issuer: Mapped[str] = mapped_column(String(500))
    subject: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class SignIn(Base):
    """A sign-in that is under way.

    Attributes:
        key_sha256: of the secret that the browser has as a cookie.
        state, nonce, verifier: that this sign-in's answer must have.
        after: path to go on to.
        account_id: that the identity shall be linked to; None: whoever has it signs in.
        subject: who has signed in there, where an account is still to be named; None: nobody yet.
    """

    __tablename__ = "sign_in"
    __table_args__ = (UniqueConstraint("key_sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key_sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(64))
    nonce: Mapped[str] = mapped_column(String(64))
    verifier: Mapped[str] = mapped_column(String(64))
    after: Mapped[str] = mapped_column(String(1000))
    account_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"), index=True)
    subject: Mapped[str | None] = mapped_column(String(255))
    expires_at: Mapped[datetime] = mapped_column(index=True)


def begin(session: Session, after: str, account: Account | None = None) -> tuple[SignIn, str]:
    """Begin a sign-in, and return it with the browser's secret; those that took too long are forgotten."""
    session.execute(delete(SignIn).where(SignIn.expires_at < utc_now()))
    state, nonce, verifier = (secrets.token_urlsafe(36) for _ in range(3))
    row = SignIn(state=state, nonce=nonce, verifier=verifier, after=after[:1000])
    row.account_id = account.id if account is not None else None
    return row, _keep(session, row)


def _keep(session: Session, row: SignIn) -> str:
    """Add a sign-in under a new secret of the browser's, and return that."""
    key = secrets.token_urlsafe(32)
    row.key_sha256, row.expires_at = hash_secret(key), utc_now() + LIFE
    session.add(row)
    session.flush()
    return key


def take(session: Session, key: str, state: str) -> SignIn:
    """Return the sign-in that this browser has begun with this state; it is good for nothing then.

    Raises:
        Forbidden: there is none.
    """
    waits = SignIn.key_sha256 == hash_secret(key), SignIn.expires_at > utc_now(), SignIn.subject.is_(None)
    row = session.scalars(delete(SignIn).where(*waits).returning(SignIn)).one_or_none()
    if row is None or not hmac.compare_digest(row.state.encode(), state.encode()):
        raise Forbidden(STALE)
    return row


def find_identity(session: Session, issuer: str, subject: str) -> Account | None:
    """Return the account of an identity, or None."""
    query = select(Account).join(Identity, Identity.account_id == Account.id)
    return session.scalars(query.where(Identity.issuer == issuer, Identity.subject == subject)).one_or_none()


def link(session: Session, account: Account, issuer: str, subject: str) -> None:
    """Let an identity sign in to an account. Raises: Conflict: it signs in to another one."""
    session.add(Identity(account_id=account.id, issuer=issuer, subject=subject))
    taken = Conflict("That identity signs in to an account already; unlink it there first.")
    with unique(session, {"uq_identity_issuer_subject": taken}):
        return


def wait_for_name(session: Session, subject: str, after: str) -> str:
    """Keep who has signed in until they have named their account; return the browser's new secret."""
    empty = dict.fromkeys(("state", "nonce", "verifier"), "")
    return _keep(session, SignIn(subject=subject, after=after, **empty))


def name_account(
    session: Session, settings: Settings, key: str, name: str, network: str | None
) -> tuple[Account, str]:
    """Add the account of whoever has signed in, and return it with the path to go on to.

    Raises:
        Forbidden: this browser has no such sign-in, or signup is closed.
        InvalidName, NameTaken: the sign-in waits for another name.
    """
    waits = SignIn.key_sha256 == hash_secret(key), SignIn.expires_at > utc_now(), SignIn.subject.is_not(None)
    row = session.scalars(select(SignIn).where(*waits).with_for_update()).one_or_none()
    if row is None or row.subject is None:
        raise Forbidden(STALE)
    account = sign_up(session, settings, name, None, network=network)
    link(session, account, settings.oidc_issuer, row.subject)
    after = row.after
    session.delete(row)
    return account, after


def list_identities(session: Session, account: Account) -> list[Identity]:
    """Return the identities that sign in to an account, oldest first."""
    return list(
        session.scalars(select(Identity).where(Identity.account_id == account.id).order_by(Identity.id))
    )


def unlink(session: Session, caller: Caller, identity_id: int) -> None:
    """End an identity's sign-ins.

    Raises:
        NotFound: the account has no such identity.
        Conflict: nobody could sign in any more.
    """
    query = select(Account).where(Account.id == caller.account.id).with_for_update(key_share=True)
    account = session.scalars(query.execution_options(populate_existing=True)).one()
    own = list_identities(session, account)
    row = next((one for one in own if one.id == identity_id), None)
    if row is None:
        raise NotFound(f"You have no identity {identity_id}.")
    if len(own) == 1 and account.password_hash is None:
        raise Conflict("You would have no way to sign in: set a password first.")
    session.delete(row)
    session.flush()
