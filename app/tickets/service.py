"""Rules of tickets: finding by name or digest, cards, yanking."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.orm import Session, joinedload, undefer

from app.accounts.models import Account
from app.db import utc_now
from app.tickets.models import YANK_REASONS, TicketTag
from app.tickets.models import Ticket as Listing
from nirvana.errors import Forbidden, Invalid, NotFound, PreconditionFailed, Problem

MAX_TAGS = 20
_TAG = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


WHOLE = (
    joinedload(Listing.owner),
    joinedload(Listing.blob),
    undefer(Listing.manifest),
    undefer(Listing.layers),
)


def visible_to(reader: Account | None) -> ColumnElement[bool]:
    """The listings that somebody may see."""
    public = Listing.visibility == "public"
    return public if reader is None else or_(public, Listing.owner_id == reader.id)


def get_ticket(session: Session, reference: str, reader: Account | None = None) -> Listing:
    """A listing, whole, by `owner/name` or by `sha256:hex` (then the first public one).

    Raises:
        NotFound: there is none that `reader` may see.
    """
    query = select(Listing).options(*WHOLE).where(visible_to(reader))
    if _DIGEST.fullmatch(reference):
        query = query.where(Listing.digest == reference)
        query = query.order_by(Listing.visibility.desc(), Listing.id).limit(1)
    else:
        owner, _, name = reference.partition("/")
        query = query.join(Listing.owner).where(Account.name == owner, Listing.name == name)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound(f"There is no ticket {reference[:200]!r}.")
    return row


def list_known(session: Session, digest: str, limit: int, most_bytes: int) -> list[tuple[str, str]]:
    """Other public tickets of a ticket's architecture, newest first: the first name and the file of each.

    Args:
        digest: the ticket's; it is none of them.
        limit: the most to give.
        most_bytes: of their files together.

    Returns:
        (owner/name, digest of the file) of each.
    """
    same = select(Listing.architecture_id).where(Listing.digest == digest).limit(1).scalar_subquery()
    first = (
        select(func.min(Listing.id))
        .where(Listing.architecture_id == same, Listing.digest != digest)
        .where(visible_to(None), Listing.yanked_at.is_(None))
        .group_by(Listing.digest)
    )
    query = select(Listing).options(*WHOLE[:2]).where(Listing.id.in_(first)).order_by(Listing.id.desc())
    known, left = list[tuple[str, str]](), most_bytes
    for row in session.scalars(query.limit(limit)):
        left -= row.blob.size_bytes
        if left >= 0:
            known.append((f"{row.owner.name}/{row.name}", row.blob.digest))
    return known


def get_own(session: Session, owner: Account, name: str) -> Listing:
    """The listing `owner/name`, whole and as the database has it now."""
    query = select(Listing).where(Listing.owner_id == owner.id, Listing.name == name)
    return session.scalars(query.options(*WHOLE).execution_options(populate_existing=True)).one()


def get_own_ticket(session: Session, reference: str, owner: Account, *, admin: bool = False) -> Listing:
    """A listing that somebody may change. Raises: NotFound, Forbidden."""
    row = get_ticket(session, reference, owner)
    if row.owner_id != owner.id and not admin:
        raise Forbidden(f"{reference} belongs to {row.owner.name}, and you are {owner.name}.")
    return row


def update_card(session: Session, row: Listing, changes: Mapping[str, Any], if_match: str | None) -> None:
    """Change a listing's card or tags.

    Args:
        changes: `card` (markdown or None) and `tags`, each may be left out.
        if_match: the If-Match header: the change is made only on that version.

    Raises:
        PreconditionFailed: somebody changed it meanwhile.
        Invalid: a tag that is none, or too many.
    """
    session.refresh(row, ["version"], with_for_update=True)
    check_version(row, if_match)
    if "card" in changes:
        row.card = changes["card"]
    if "tags" in changes:
        row.tags = _check_tags(changes["tags"])
        session.execute(delete(TicketTag).where(TicketTag.ticket_id == row.id))
        session.add_all(TicketTag(tag=tag, ticket_id=row.id) for tag in row.tags)
    row.version += 1
    session.flush()


def check_version(row: Listing, if_match: str | None) -> None:
    """Raises: PreconditionFailed."""
    wanted = [tag.strip().removeprefix("W/") for tag in (if_match or "*").split(",")]
    if "*" not in wanted and etag(row) not in wanted:
        raise PreconditionFailed(f"The ticket is {etag(row)} now, not {if_match}; read it again.")


def etag(row: Listing) -> str:
    """The entity tag of a listing's JSON: it changes with the card, the verdict and a yank."""
    return f'"{row.digest[7:23]}-{row.id}-{row.version}"'


def _check_tags(tags: Iterable[str]) -> list[str]:
    chosen = sorted(set(tags))
    problems = [
        Problem(f"/tags/{i}", "pattern", f"{tag[:100]!r} is not a tag: 1 to 40 of a-z, 0-9 and '-'")
        for i, tag in enumerate(tags)
        if not _TAG.fullmatch(tag)
    ]
    if len(chosen) > MAX_TAGS:
        problems.append(Problem("/tags", "too-many", f"{len(chosen)} tags, expected at most {MAX_TAGS}"))
    if problems:
        raise Invalid(f"tags: {problems[0].detail}.", errors=problems)
    return chosen


def yank_ticket(session: Session, row: Listing, reason: str, detail: str | None) -> None:
    """Hide a listing from search, with a reason; who knows it still gets it. Again: a new reason."""
    assert reason in YANK_REASONS
    row.yanked_at, row.yank_reason, row.yank_detail = utc_now(), reason, detail
    row.version += 1
    session.flush()


def unyank_ticket(session: Session, row: Listing) -> None:
    """Show a yanked listing in search again."""
    if row.yanked_at is not None:
        row.yanked_at = row.yank_reason = row.yank_detail = None
        row.version += 1
        session.flush()
