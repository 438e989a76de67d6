"""Rules of organisations: who makes one, who is invited, and that there is always an owner.

Whoever changes the members holds the organisation's row first, so that two owners who remove each other at
once do not leave it without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session, aliased

from app.accounts.models import Account
from app.accounts.organisations.roles import Invitation, Membership, find_role
from app.accounts.service import create_account, find_account
from app.settings import Settings
from nirvana.errors import Conflict, Forbidden, NotFound, QuotaExceeded

MAX_MEMBERS = 200  # of an organisation, the invited ones among them
MAX_MEMBERSHIPS = 100  # of an account
MAX_INVITATIONS = 100  # that an account is shown


@dataclass(frozen=True)
class Tie:
    """A membership or an invitation, as people see it.

    Attributes:
        created_at: when it began.
        invited_by: of an invitation; None of a membership.
    """

    organisation: str
    account: str
    role: str
    created_at: datetime
    invited_by: str | None = None


def create_organisation(session: Session, settings: Settings, maker: Account, name: str) -> Account:
    """Add an organisation, with its maker as its owner.

    Raises:
        InvalidName, NameTaken: names of accounts and of organisations are in one place.
        QuotaExceeded: the account has made as many as it may, or is in too many.
    """
    _hold(session, maker.id)
    made = session.scalar(select(func.count()).where(Account.made_by_id == maker.id)) or 0
    most = settings.max_organisations_per_account
    if made >= most:
        raise QuotaExceeded(f"You have made {made} organisations, expected at most {most}.")
    _check_memberships(session, maker)
    organisation = create_account(session, name)
    organisation.is_organisation, organisation.made_by_id = True, maker.id
    session.add(Membership(organisation_id=organisation.id, account_id=maker.id, role="owner"))
    session.flush()
    return organisation


def get_organisation(session: Session, name: str) -> Account:
    """Return an organisation. Raises: NotFound."""
    account = find_account(session, name)
    if account is None or not account.is_organisation:
        raise NotFound(f"There is no organisation {name[:200]!r}.")
    return account


def list_memberships(session: Session, account: Account) -> list[Tie]:
    """Return the organisations that an account is a member of, by name."""
    query = select(Account.name, Membership.role, Membership.created_at)
    query = query.join_from(Membership, Account, Account.id == Membership.organisation_id)
    query = query.where(Membership.account_id == account.id).order_by(Account.name)
    return [Tie(name, account.name, role, at) for name, role, at in session.execute(query)]


def list_invitations(session: Session, account: Account) -> list[Tie]:
    """Return the invitations that an account has not answered yet, the newest first."""
    return _invitations(session, Invitation.account_id == account.id)


def list_members(
    session: Session, reader: Account, organisation: Account
) -> tuple[Sequence[Tie], Sequence[Tie]]:
    """Return the members of an organisation, by name, and to its owners the invited ones, too.

    Raises:
        Forbidden: the reader is no member.
    """
    role = find_role(session, reader, organisation)
    if role is None:
        raise Forbidden(f"The members of {organisation.name} are seen by its members alone.")
    query = select(Account.name, Membership.role, Membership.created_at)
    query = query.join_from(Membership, Account, Account.id == Membership.account_id)
    query = query.where(Membership.organisation_id == organisation.id).order_by(Account.name)
    members = [Tie(organisation.name, name, of, at) for name, of, at in session.execute(query)]
    is_owner = role == "owner"
    return members, _invitations(session, Invitation.organisation_id == organisation.id) if is_owner else []


def _invitations(session: Session, condition: ColumnElement[bool]) -> list[Tie]:
    organisation, invited, inviter = aliased(Account), aliased(Account), aliased(Account)
    query = select(organisation.name, invited.name, Invitation.role, Invitation.created_at, inviter.name)
    query = query.join_from(Invitation, organisation, organisation.id == Invitation.organisation_id)
    query = query.join(invited, invited.id == Invitation.account_id)
    query = query.join(inviter, inviter.id == Invitation.invited_by_id).where(condition)
    rows = session.execute(query.order_by(Invitation.created_at.desc(), invited.name).limit(MAX_INVITATIONS))
    return [Tie(*row) for row in rows]


def invite(session: Session, owner: Account, organisation_name: str, name: str, role: str) -> Tie:
    """Invite an account to be a member; again: with another role.

    Raises:
        NotFound: there is no such organisation, or no such person.
        Forbidden: the caller does not own it.
        Conflict: the account is a member already.
        QuotaExceeded: the organisation is full.
    """
    organisation = _hold_owned(session, owner, organisation_name)
    account = find_account(session, name)
    if account is None or account.is_organisation:
        raise NotFound(f"There is nobody with the name {name[:200]!r}.")
    if find_role(session, account, organisation) is not None:
        raise Conflict(f"{name} is a member of {organisation.name} already.")
    counts = [
        session.scalar(select(func.count()).where(table.organisation_id == organisation.id)) or 0
        for table in (Membership, Invitation)
    ]
    if sum(counts) >= MAX_MEMBERS:
        detail = f"{organisation.name} has {counts[0]} members and {counts[1]} invitations"
        raise QuotaExceeded(f"{detail}, expected fewer than {MAX_MEMBERS} together.")
    _take_invitation(session, organisation, account)
    invitation = Invitation(organisation_id=organisation.id, account_id=account.id, role=role)
    invitation.invited_by_id = owner.id
    session.add(invitation)
    session.flush()
    return Tie(organisation.name, name, role, invitation.created_at, owner.name)


def accept_invitation(session: Session, account: Account, organisation_name: str) -> Tie:
    """Become a member, as the invitation says.

    Raises:
        NotFound: there is no such organisation, or it does not invite the account.
        QuotaExceeded: the account is in too many.
    """
    organisation = _hold(session, get_organisation(session, organisation_name).id)
    role = _take_invitation(session, organisation, account)
    if role is None:
        raise NotFound(f"{organisation.name} does not invite {account.name}.")
    _check_memberships(session, account)
    member = Membership(organisation_id=organisation.id, account_id=account.id, role=role)
    session.add(member)
    session.flush()
    return Tie(organisation.name, account.name, role, member.created_at)


def drop_invitation(session: Session, caller: Account, organisation_name: str, name: str) -> None:
    """Decline one's invitation, or withdraw one of an organisation that one owns.

    Raises:
        NotFound: there is none. Forbidden: the caller is neither of them.
    """
    organisation = _hold(session, get_organisation(session, organisation_name).id)
    if name != caller.name:
        _need_owner(session, caller, organisation)
    account = find_account(session, name)
    if account is None or _take_invitation(session, organisation, account) is None:
        raise NotFound(f"{organisation.name} does not invite {name[:200]!r}.")


def change_role(session: Session, owner: Account, organisation_name: str, name: str, role: str) -> Tie:
    """Give a member another role.

    Raises:
        NotFound: there is no such organisation or member. Forbidden: the caller does not own it.
        Conflict: it would have no owner.
    """
    organisation = _hold_owned(session, owner, organisation_name)
    member = _get_member(session, organisation, name)
    if role != "owner":
        _need_another_owner(session, organisation, member, name)
    member.role = role
    session.flush()
    return Tie(organisation.name, name, role, member.created_at)


def remove_member(session: Session, caller: Account, organisation_name: str, name: str) -> None:
    """End a membership: one's own, or any of an organisation that one owns. It is over at once.

    Raises:
        NotFound: there is no such organisation or member. Forbidden: the caller is neither.
        Conflict: it would have no owner.
    """
    organisation = _hold(session, get_organisation(session, organisation_name).id)
    if name != caller.name:
        _need_owner(session, caller, organisation)
    member = _get_member(session, organisation, name)
    _need_another_owner(session, organisation, member, name)
    session.delete(member)
    session.flush()


def _hold(session: Session, account_id: int) -> Account:
    """Return an account, its row held until the commit."""
    query = select(Account).where(Account.id == account_id).with_for_update(key_share=True)
    return session.scalars(query.execution_options(populate_existing=True)).one()


def _hold_owned(session: Session, owner: Account, name: str) -> Account:
    organisation = _hold(session, get_organisation(session, name).id)
    _need_owner(session, owner, organisation)
    return organisation


def _need_owner(session: Session, account: Account, organisation: Account) -> None:
    role = find_role(session, account, organisation)
    if role != "owner":
        whose = f"you are its {role}" if role else "you are no member"
        raise Forbidden(f"This is for owners of {organisation.name}, and {whose}.")


def _take_invitation(session: Session, organisation: Account, account: Account) -> str | None:
    """End an invitation and return its role; None where there is none."""
    of_both = Invitation.organisation_id == organisation.id, Invitation.account_id == account.id
    return session.scalar(delete(Invitation).where(*of_both).returning(Invitation.role))


def _get_member(session: Session, organisation: Account, name: str) -> Membership:
    query = select(Membership).join(Account, Account.id == Membership.account_id)
    query = query.where(Membership.organisation_id == organisation.id, Account.name == name)
    member = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if member is None:
        raise NotFound(f"{organisation.name} has no member {name[:200]!r}.")
    return member


def _need_another_owner(session: Session, organisation: Account, member: Membership, name: str) -> None:
    """Let a member stop to be an owner, where there is another one; what they have invited lapses.

    Raises:
        Conflict: there is none.
    """
    if member.role != "owner":
        return
    of_it = Membership.organisation_id == organisation.id, Membership.role == "owner"
    if (session.scalar(select(func.count()).where(*of_it)) or 0) < 2:
        detail = f"{name} is the only owner of {organisation.name}"
        raise Conflict(f"{detail}, and there must be one: make another member an owner first.")
    by_them = Invitation.organisation_id == organisation.id, Invitation.invited_by_id == member.account_id
    session.execute(delete(Invitation).where(*by_them))


def _check_memberships(session: Session, account: Account) -> None:
    count = session.scalar(select(func.count()).where(Membership.account_id == account.id)) or 0
    if count >= MAX_MEMBERSHIPS:
        raise QuotaExceeded(f"You are in {count} organisations, expected fewer than {MAX_MEMBERSHIPS}.")
