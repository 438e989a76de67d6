"""Members of organisations, and the one rule of what is whose: who sees a private listing, who acts for its
owner.

The conditions ask the table of members each time, so a membership that ends is over for every token at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, Index, String, literal, or_, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, mapped_column

from app.accounts.models import Account
from app.accounts.service import find_account
from app.db import Base, one_of, utc_now
from nirvana.errors import Forbidden

ROLES = ("reader", "writer", "owner")
"""Each may do what those before it may: see private listings; publish, change and yank; manage members."""
Column = ColumnElement[Any] | InstrumentedAttribute[Any]


class Membership(Base):
    """A member of an organisation."""

    __tablename__ = "membership"
    __table_args__ = (
        one_of("role", ROLES),
        Index("ix_membership_account_id_organisation_id", "account_id", "organisation_id"),
    )

    organisation_id: Mapped[int] = mapped_column(ForeignKey("account.id"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Invitation(Base):
    """Somebody who may become a member, and is none until they accept."""

    __tablename__ = "invitation"
    __table_args__ = (one_of("role", ROLES),)

    organisation_id: Mapped[int] = mapped_column(ForeignKey("account.id"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(10))
    invited_by_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


def may_see(visibility: Column, owner_id: Column, reader: Account | None) -> ColumnElement[bool]:
    """Return the condition of the listings that are public, the reader's own, or an organisation's that the
    reader is a member of."""
    is_public: ColumnElement[bool] = visibility == "public"
    if reader is None:
        return is_public
    organisations = select(Membership.organisation_id).where(Membership.account_id == reader.id)
    return or_(is_public, owner_id.in_(union_all(select(literal(reader.id)), organisations)))


def acts_for(account_id: Column, owner_id: int) -> ColumnElement[bool]:
    """Return the condition that an account is an owner of listings, or a member of that organisation."""
    members = select(Membership.account_id).where(Membership.organisation_id == owner_id)
    return account_id.in_(union_all(select(literal(owner_id)), members))


def list_owner_ids(session: Session, reader: Account) -> list[int]:
    """Return the accounts whose private listings a reader sees."""
    query = select(Membership.organisation_id).where(Membership.account_id == reader.id)
    return [reader.id, *session.scalars(query)]


def find_role(session: Session, account: Account, organisation: Account, *, hold: bool = False) -> str | None:
    """Return the role of an account in an organisation, None where it is no member.

    Args:
        hold: until the commit: whoever ends or changes the membership meanwhile waits.
    """
    query = select(Membership.role).where(
        Membership.organisation_id == organisation.id, Membership.account_id == account.id
    )
    return session.scalar(query.with_for_update(read=True) if hold else query)


def may_act_for(session: Session, account: Account, owner: Account, *, hold: bool = False) -> bool:
    """Tell whether an account may publish, change and yank listings of an owner."""
    is_own = owner.id == account.id
    return is_own or find_role(session, account, owner, hold=hold) in ROLES[ROLES.index("writer") :]


def get_owner(session: Session, account: Account, name: str, *, hold: bool = False) -> Account:
    """Return the owner in whose name an account wants to publish: itself, or an organisation.

    Raises:
        Forbidden: it may not; the same whoever has that name, or nobody.
    """
    if name == account.name:
        return account
    owner = find_account(session, name)
    if owner is None or not may_act_for(session, account, owner, hold=hold):
        raise Forbidden(f"You are {account.name!r} and cannot publish as {name[:200]!r}.")
    return owner
