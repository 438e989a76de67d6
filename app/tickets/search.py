"""Search: filters, order and pages of listings, each backed by an index on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, asc, desc, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, joinedload

from app.accounts.models import Account
from app.paging import Page, binding, read_cursor, write_cursor
from app.ranges import Range
from app.tickets.models import Ticket, TicketTag, TicketTerm
from app.tickets.service import visible_to
from app.tickets.statistics import words

SORTS: dict[str, tuple[InstrumentedAttribute[Any], type, str]] = {
    "created_at": (Ticket.created_at, datetime, "desc"),
    "accuracy": (Ticket.sort_accuracy, float, "desc"),
    "gap": (Ticket.sort_gap, float, "desc"),
    "density": (Ticket.density, float, "asc"),
    "kept": (Ticket.kept, int, "asc"),
}
FACETS: dict[str, InstrumentedAttribute[Any]] = {
    "task": Ticket.task,
    "architecture": Ticket.architecture_name,
    "family": Ticket.family,
    "method": Ticket.method,
    "verdict": Ticket.verdict,
    "license": Ticket.license,
}
RANGES: dict[str, InstrumentedAttribute[Any]] = {
    "density": Ticket.density,
    "kept": Ticket.kept,
    "accuracy": Ticket.accuracy,
    "accuracy_gap": Ticket.accuracy_gap,
    "rewind_step": Ticket.rewind_step,
    "created_at": Ticket.created_at,
}
MAX_FACET_VALUES = 50


@dataclass(frozen=True)
class Search:
    """What somebody looks for.

    Attributes:
        q: words; a listing has each of them, or a word that begins with it.
        equal: FACETS' names and the value that a listing must have.
        ranges: RANGES' names with theirs. Accuracies are measured ones: a claim is never searched.
        initial: `seeded` or `stored`.
        sort: one of SORTS.
        order: `asc` or `desc`; None: the sort's own.
    """

    q: str = ""
    equal: dict[str, str] = field(default_factory=dict)
    owner: str | None = None
    tag: str | None = None
    initial: str | None = None
    ranges: dict[str, Range] = field(default_factory=dict)
    include_yanked: bool = False
    sort: str = "created_at"
    order: str | None = None

    @property
    def descending(self) -> bool:
        return (self.order or SORTS[self.sort][2]) == "desc"


def search_tickets(
    session: Session,
    search: Search,
    *,
    reader: Account | None = None,
    limit: int = 25,
    cursor: str | None = None,
    facets: tuple[str, ...] = (),
) -> Page[Ticket]:
    """One page of the listings that match.

    Args:
        reader: whose private listings are found as well.
        limit: most rows, 1 to 100.
        cursor: where the page begins; the first one also has the total.
        facets: FACETS' names whose values are counted, each without its own filter.

    Raises:
        InvalidCursor: the cursor is of another list.
    """
    column, kind, _ = SORTS[search.sort]
    bound_to = binding(search, reader and reader.id)
    query = _matching(select(Ticket), search, reader).options(joinedload(Ticket.owner))
    if cursor is not None:
        value, after = read_cursor(cursor, bound_to, (kind, int))
        query = query.where(_later(column, value, after, search.descending))
    direction = desc if search.descending else asc
    rows = list(session.scalars(query.order_by(direction(column), direction(Ticket.id)).limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    values = (getattr(rows[-1], column.key), rows[-1].id) if more else ()
    return Page(
        rows,
        next_cursor=write_cursor(bound_to, values) if more else None,
        total=_count(session, search, reader) if cursor is None else None,
        facets={name: _count_values(session, search, reader, name) for name in facets},
    )


def _later(column: Any, value: Any, after: int, descending: bool) -> ColumnElement[bool]:
    """The rows after (value, after) in the order (column, id)."""
    if descending:
        return and_(column <= value, or_(column < value, Ticket.id < after))
    return and_(column >= value, or_(column > value, Ticket.id > after))


def _matching(query: Select[Any], search: Search, reader: Account | None) -> Select[Any]:
    return query.where(visible_to(reader), *_conditions(search))


def _conditions(search: Search) -> Iterator[ColumnElement[bool]]:
    if not search.include_yanked:
        yield Ticket.yanked_at.is_(None)
    for name, value in search.equal.items():
        yield FACETS[name] == value
    if search.initial is not None:
        yield Ticket.initial_kind == search.initial
    if search.owner is not None:
        yield Ticket.owner_id.in_(select(Account.id).where(Account.name == search.owner))
    if search.tag is not None:
        yield Ticket.id.in_(select(TicketTag.ticket_id).where(TicketTag.tag == search.tag))
    for name, wanted in search.ranges.items():
        if wanted.minimum is not None:
            yield RANGES[name] >= wanted.minimum
        if wanted.maximum is not None:
            yield RANGES[name] <= wanted.maximum
    for word in dict.fromkeys(words(search.q)):
        terms = select(TicketTerm.ticket_id)
        yield Ticket.id.in_(terms.where(TicketTerm.term >= word, TicketTerm.term < word + "\U0010ffff"))


def _count(session: Session, search: Search, reader: Account | None) -> int:
    return session.scalar(_matching(select(func.count()).select_from(Ticket), search, reader)) or 0


def _count_values(session: Session, search: Search, reader: Account | None, name: str) -> dict[str, int]:
    """How many listings have each value of a facet, the most frequent ones first."""
    others = replace(search, equal={key: value for key, value in search.equal.items() if key != name})
    column, count = FACETS[name], func.count()
    query = _matching(select(column, count).where(column.is_not(None)), others, reader)
    query = query.group_by(column).order_by(count.desc(), column).limit(MAX_FACET_VALUES)
    return dict(session.execute(query).all())


def list_children(session: Session, digest: str, reader: Account | None, limit: int = 100) -> list[Ticket]:
    """Listings that were pruned from this ticket, oldest first."""
    query = select(Ticket).where(Ticket.parent_digest == digest, visible_to(reader))
    return list(session.scalars(query.options(joinedload(Ticket.owner)).order_by(Ticket.id).limit(limit)))


def list_ancestors(session: Session, row: Ticket, reader: Account | None, limit: int = 100) -> list[Ticket]:
    """The listings that this one was pruned from, the nearest first, as far as they are published here.

    Of several listings of one digest it takes the one of the same job, then the oldest.
    """
    found: list[Ticket] = []
    while row.parent_digest is not None and len(found) < limit:
        query = select(Ticket).where(Ticket.digest == row.parent_digest, visible_to(reader))
        same_job = Ticket.job_id == row.job_id if row.job_id else Ticket.id == 0
        query = query.order_by(same_job.desc().nulls_last(), Ticket.id).limit(1)
        parent = session.scalars(query.options(joinedload(Ticket.owner))).one_or_none()
        if parent is None or parent.digest in {row.digest for row in found} | {row.digest}:
            break
        found.append(parent)
        row = parent
    return found
