"""Search: filters, order and pages of listings, each backed by an index on both databases.

The filters are rows of `nirvana.client.filters`; here each gets its condition. A row that names a column of
the listing needs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import ColumnElement, and_, asc, desc, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, joinedload

from app.accounts.models import Account
from app.pagination import DEFAULT_LIMIT, Page, SortValue, binding, cut_page, read_cursor
from app.tickets.models import Listing, TicketTag, TicketTerm
from app.tickets.service import visible_to
from nirvana.client.filters import FILTERS, PARSERS, SORTS, Range, parse_range
from nirvana.errors import InvalidQuery, Problem

Column = InstrumentedAttribute[object]
Chosen = str | bool | Range
MAX_FACET_VALUES = 50
MAX_TERMS = 200
MAX_TERM_LENGTH = 40
_WORD = re.compile(r"[^\W_]+")


def column_of(name: str) -> Column:
    """Return the listing's column of that name. Raises: AttributeError, where it has none."""
    column: Column = getattr(Listing, name)
    return column


COLUMNS = {row.name: column_of(row.column or row.name) for row in FILTERS if row.column is not None}
FACETS = {row.name: COLUMNS[row.name] for row in FILTERS if row.facet}


@dataclass(frozen=True)
class Search:
    """The filters and the order of a search.

    Attributes:
        filters: FILTERS' name -> the text, the flag or the range that a listing must have. Accuracies are
            measured ones: a claim is never searched.
        sort: one of SORTS.
        order: `asc` or `desc`; None: the sort's own.
        known_only: no listings whose masks were brought in, and no copies.
    """

    filters: Mapping[str, Chosen] = field(default_factory=dict)
    sort: str = "created_at"
    order: str | None = None
    known_only: bool = False

    @property
    def hides_unknown(self) -> bool:
        """True where only attested and sealed first listings are shown, because nobody asked for more."""
        asks = "origin" in self.filters
        return not asks and (self.known_only or self.filters.get("verdict") == "WINNING")

    @property
    def descending(self) -> bool:
        return (self.order or SORTS[self.sort].order) == "desc"


def read_search(query: Mapping[str, str | bool | None]) -> Search:
    """Return the search of a query: PARAMETERS' names with their values; empty ones filter nothing.

    Raises:
        InvalidQuery: a range that is none.
    """
    chosen: dict[str, Chosen] = {}
    for row in FILTERS:
        value = query.get(row.name)
        if not value:
            continue
        if row.kind == "range":
            chosen[row.name] = parse_range(row.name, str(value), PARSERS[row.type])
        else:
            chosen[row.name] = str(value).upper() if row.is_upper else value
    order = query.get("order")
    return Search(chosen, str(query.get("sort") or Search.sort), str(order) if order else None)


def read_facets(text: str | None) -> tuple[str, ...]:
    """Return the facets of a comma-separated list. Raises: InvalidQuery."""
    names = tuple(dict.fromkeys(text.split(","))) if text else ()
    for name in names:
        if name not in FACETS:
            detail = f"{name[:100]!r} is none of {', '.join(FACETS)}"
            problem = Problem("/query/facets", "unknown-facet", detail)
            raise InvalidQuery(f"facets: {detail}.", errors=[problem])
    return names


def search_tickets(
    session: Session,
    search: Search,
    *,
    reader: Account | None = None,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
    facets: tuple[str, ...] = (),
) -> Page[Listing]:
    """Return one page of the listings that match.

    Args:
        reader: whose private listings are searched as well.
        limit: most rows, 1 to 100.
        cursor: where the page begins; the first one also has the total.
        facets: FACETS' names whose values are counted, each without its own filter.

    Raises:
        InvalidCursor: the cursor is of another list.
    """
    column = column_of(SORTS[search.sort].column)
    bound_to = binding(search, reader and reader.id)
    query = select(Listing).where(*_conditions(search, reader)).options(joinedload(Listing.owner))
    if cursor is not None:
        value, after = read_cursor(cursor, bound_to, (column.type.python_type, int))
        query = query.where(_later(column, value, after, search.descending))
    direction = desc if search.descending else asc
    rows = session.scalars(query.order_by(direction(column), direction(Listing.id)).limit(limit + 1)).all()
    page = cut_page(rows, limit, bound_to, lambda row: (getattr(row, column.key), row.id))
    counts = {name: _count_values(session, search, reader, name) for name in facets}
    return replace(page, facets=counts, total=_count(session, search, reader) if cursor is None else None)


def _later(column: Column, value: SortValue, after: int, descending: bool) -> ColumnElement[bool]:
    """Return the condition of the rows after (value, after) in the order (column, id)."""
    if descending:
        return and_(column <= value, or_(column < value, Listing.id < after))
    return and_(column >= value, or_(column > value, Listing.id > after))


def _conditions(search: Search, reader: Account | None) -> Iterator[ColumnElement[bool]]:
    yield visible_to(reader)
    if not search.filters.get("include_yanked"):
        yield Listing.yanked_at.is_(None)
    if search.hides_unknown:
        yield from _are_known()
    for name, value in search.filters.items():
        yield from _compare(COLUMNS[name], value) if name in COLUMNS else CONDITIONS[name](str(value))


def _are_known() -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of what is shown as a winner unless somebody asks for more: its mask was not
    searched on the test labels, as far as the registry knows, and it is no copy of an earlier listing."""
    yield Listing.origin.in_(("attested", "sealed"))
    other = aliased(Listing)
    is_same = or_(other.digest == Listing.digest, other.fingerprint == Listing.fingerprint)
    is_open = (other.visibility == "public", other.yanked_at.is_(None), other.id < Listing.id)
    yield ~select(other.id).where(is_same, *is_open).exists()


def _compare(column: Column, value: Chosen) -> Iterator[ColumnElement[bool]]:
    if not isinstance(value, Range):
        if (column.key, value) != ("origin", "any"):
            yield column == value
        return
    if value.minimum is not None:
        yield column >= value.minimum
    if value.maximum is not None:
        yield column <= value.maximum


def _has_words(text: str) -> Iterator[ColumnElement[bool]]:
    """Yield a condition a word: a listing has it, or a word that begins with it."""
    for word in dict.fromkeys(words(text)):
        terms = select(TicketTerm.ticket_id)
        yield Listing.id.in_(terms.where(TicketTerm.term >= word, TicketTerm.term < word + "\U0010ffff"))


def _is_owned_by(name: str) -> Iterator[ColumnElement[bool]]:
    yield Listing.owner_id.in_(select(Account.id).where(Account.name == name))


def _has_tag(tag: str) -> Iterator[ColumnElement[bool]]:
    yield Listing.id.in_(select(TicketTag.ticket_id).where(TicketTag.tag == tag))


CONDITIONS: dict[str, Callable[[str], Iterable[ColumnElement[bool]]]] = {
    "q": _has_words,
    "owner": _is_owned_by,
    "tag": _has_tag,
    "include_yanked": lambda _: (),  # it takes a condition away
}
"""The conditions of the filters that are no column of the listing."""


def _count(session: Session, search: Search, reader: Account | None) -> int:
    query = select(func.count()).select_from(Listing).where(*_conditions(search, reader))
    return session.scalar(query) or 0


def _count_values(session: Session, search: Search, reader: Account | None, name: str) -> dict[str, int]:
    """Count the listings of each value of a facet, the most frequent ones first."""
    others = replace(search, filters={key: value for key, value in search.filters.items() if key != name})
    column, count = FACETS[name], func.count()
    query = select(column, count).where(column.is_not(None), *_conditions(others, reader))
    query = query.group_by(column).order_by(count.desc(), column).limit(MAX_FACET_VALUES)
    return {str(value): number for value, number in session.execute(query)}


def list_children(session: Session, row: Listing, reader: Account | None, limit: int = 100) -> list[Listing]:
    """Return the listings that were pruned from this ticket, oldest first: those of its owner, and those that
    the registry's own searches found. What a stranger's file says of its parent is a claim."""
    query = select(Listing).where(Listing.parent_digest == row.digest, visible_to(reader))
    query = query.where(or_(Listing.owner_id == row.owner_id, Listing.job_id.is_not(None)))
    return list(session.scalars(query.options(joinedload(Listing.owner)).order_by(Listing.id).limit(limit)))


def list_ancestors(session: Session, row: Listing, reader: Account | None, limit: int = 100) -> list[Listing]:
    """Return the listings that this one was pruned from, the nearest first, as far as they are here.

    Of several listings of one digest it takes the one of the same job, then the oldest. A parent that the
    registry did not see is a claim, which leads to listings of the same owner alone.
    """
    ancestors: list[Listing] = []
    while row.parent_digest is not None and len(ancestors) < limit:
        query = select(Listing).where(Listing.digest == row.parent_digest, visible_to(reader))
        if row.job_id is None:
            query = query.where(Listing.owner_id == row.owner_id)
        same_job = Listing.job_id == row.job_id if row.job_id else Listing.id == 0
        query = query.order_by(same_job.desc().nulls_last(), Listing.id).limit(1)
        parent = session.scalars(query.options(joinedload(Listing.owner))).one_or_none()
        if parent is None or parent.digest in {row.digest, *(ancestor.digest for ancestor in ancestors)}:
            break
        ancestors.append(parent)
        row = parent
    return ancestors


def terms_of(row: Listing, owner: str) -> list[str]:
    """Return the words that a search finds a listing by."""
    fields = (owner, row.name, row.task, row.architecture_name, row.method or "", row.description or "")
    return list(dict.fromkeys(words(" ".join(fields))))[:MAX_TERMS]


def words(text: str) -> Iterator[str]:
    """Yield the words of a text: runs of letters and digits, lower case, cut at 40 characters."""
    for word in _WORD.finditer(text.lower()):
        yield word[0][:MAX_TERM_LENGTH]
