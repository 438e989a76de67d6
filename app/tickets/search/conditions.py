"""A search as data, and the conditions of its listings.

The filters are rows of `nirvana.client.filters`; here each gets its condition. A row that names a column of
the listing needs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from sqlalchemy import ColumnElement, and_, false, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.accounts.models import Account
from app.accounts.organisations.roles import may_see
from app.evaluations.models import UNMEASURED
from app.tickets.models import Listing, ListingGroup, TicketSketch, TicketTag
from app.tickets.search.counts import find_groups
from app.tickets.search.text import Words, words
from nirvana.client.filters import FILTERS, PARSERS, RELEVANCE, SORTS, Range, parse_range
from nirvana.errors import InvalidQuery, Problem

Column = InstrumentedAttribute[object]
Chosen = str | bool | Range
Row = type[Listing]
FEW = 1000
"""The most listings that are looked up first."""
KNOWN_ORIGINS = ("attested", "sealed")
MOST_SIMILAR = 100
MOST_SHARING = 5000  # numbers of sketches that are looked at
MEASURED = ("sort_accuracy", "sort_gap")  # columns that hold UNMEASURED instead of null


def column_of(name: str, row: type[Listing] | type[ListingGroup] = Listing) -> Column:
    """Return the row's column of that name. Raises: AttributeError, where it has none."""
    column: Column = getattr(row, name)
    return column


COLUMNS = {row.name: column_of(row.column or row.name).key for row in FILTERS if row.column is not None}
FACETS = {row.name: COLUMNS[row.name] for row in FILTERS if row.facet}
GROUPED = {name: key for name, key in COLUMNS.items() if hasattr(ListingGroup, key)}
"""Filters that `ListingGroup` can answer -> its column."""


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

    @property
    def column(self) -> str:
        """The column of the listing that the search goes by."""
        return SORTS[self.sort].column

    @property
    def is_ranked(self) -> bool:
        """True where words are found by rank first."""
        return self.sort == RELEVANCE and "q" in self.filters

    @property
    def is_grouped(self) -> bool:
        """True where kept counts say how many listings there are."""
        return self.filters.keys() <= GROUPED.keys() | {"include_yanked"}

    @property
    def names_groups(self) -> bool:
        """True where some groups alone, and not all of a task, have what it finds."""
        return bool(self.filters.keys() & GROUPED.keys() - {"task"})

    def without(self, name: str) -> Search:
        """Return the search without a filter."""
        return replace(self, filters={key: value for key, value in self.filters.items() if key != name})


def read_search(query: Mapping[str, str | bool | None]) -> Search:
    """Return the search of a query: PARAMETERS' names with their values; empty ones filter nothing. Words
    without an order are found by relevance.

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
    order, own = query.get("order"), RELEVANCE if "q" in chosen else Search.sort
    return Search(chosen, str(query.get("sort") or own), str(order) if order else None)


def read_facets(text: str | None) -> tuple[str, ...]:
    """Return the facets of a comma-separated list. Raises: InvalidQuery."""
    names = tuple(dict.fromkeys(text.split(","))) if text else ()
    for name in names:
        if name not in FACETS:
            detail = f"{name[:100]!r} is none of {', '.join(FACETS)}"
            problem = Problem("/query/facets", "unknown-facet", detail)
            raise InvalidQuery(f"facets: {detail}.", errors=[problem])
    return names


def visible_to(reader: Account | None, row: Row = Listing) -> ColumnElement[bool]:
    """Return the condition of the listings that `reader` may see: the public ones, their own and those of
    their organisations; none that is in quarantine."""
    return and_(open_to(reader, row), row.quarantined_at.is_(None))


def open_to(reader: Account | None, row: Row = Listing) -> ColumnElement[bool]:
    """Return the condition of the same listings, in quarantine or not."""
    return may_see(row.visibility, row.owner_id, reader)


@dataclass(frozen=True)
class Terms:
    """The conditions of a search, on the listing or on an alias of it.

    Attributes:
        private: the private listings that the reader sees; None: they are too many to name.
    """

    session: Session
    search: Search
    reader: Account | None
    private: Sequence[int] | None = ()

    def of(self, row: Row, *, without: Collection[str] = ()) -> list[ColumnElement[bool]]:
        """Return the conditions of a row.

        Args:
            without: filters that something else takes care of.
        """
        names = [name for name in self.search.filters if name not in without]
        return [*self.of_shown(row), *self.of_filters(row, names)]

    def of_filters(self, row: Row, names: Iterable[str]) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions of these filters alone."""
        for name in names:
            value = self.search.filters[name]
            if name in COLUMNS:
                yield from _compare(column_of(COLUMNS[name], row), value)
            else:
                yield from CONDITIONS[name](self, row, str(value))

    @cached_property
    def groups(self) -> tuple[Sequence[int], int]:
        """The ids of the groups that have what the search may find, at most FEW + 1, and their listings."""
        return find_groups(self.session, self.of_group(), FEW + 1)

    @cached_property
    def listings(self) -> int:
        """The number of listings of those groups."""
        if self.search.names_groups:
            return self.groups[1]
        return find_groups(self.session, self.of_group(), 1)[1]

    def of_group(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the groups that have what the search may find: the public ones and, where
        the reader sees private listings, those of them, which have strangers' as well."""
        listed: list[ColumnElement[bool]] = []
        if not self.search.filters.get("include_yanked"):
            listed.append(ListingGroup.is_yanked.is_(False))
        if self.private is not None:
            own = select(Listing.group_id).where(Listing.id.in_(self.private))
            is_own = [ListingGroup.id.in_(own)] if self.private else []
            listed.append(or_(ListingGroup.visibility == "public", *is_own))
        if self.search.hides_unknown:
            listed += (ListingGroup.origin.in_(KNOWN_ORIGINS), ListingGroup.is_copy.is_(False))
        for name, value in self.search.filters.items():
            if name in GROUPED:
                listed += _compare(column_of(GROUPED[name], ListingGroup), value)
        return listed

    def of_shown(self, row: Row) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions of the listings that the reader is shown, whatever the filters."""
        yield visible_to(self.reader, row)
        if not self.search.filters.get("include_yanked"):
            yield row.yanked_at.is_(None)
        if self.search.hides_unknown:
            yield row.origin.in_(KNOWN_ORIGINS)
            yield row.is_copy.is_(False)


def _compare(column: Column, value: Chosen) -> Iterator[ColumnElement[bool]]:
    if not isinstance(value, Range):
        if (column.key, value) != ("origin", "any"):
            yield column == value
        return
    if value.minimum is not None:
        yield column >= value.minimum
    elif column.key in MEASURED:
        yield column > UNMEASURED
    if value.maximum is not None:
        yield column <= value.maximum


def find_owner(session: Session, name: str) -> int | None:
    """Return the id of the account of that name."""
    return session.scalar(select(Account.id).where(Account.name == name))


def _has_words(terms: Terms, row: Row, text: str) -> Iterator[ColumnElement[bool]]:
    yield Words.of(terms.session, text).is_in(row.id) if any(words(text)) else false()


def _is_owned_by(terms: Terms, row: Row, name: str) -> Iterator[ColumnElement[bool]]:
    yield row.owner_id == find_owner(terms.session, name)


def _has_tag(_: Terms, row: Row, tag: str) -> Iterator[ColumnElement[bool]]:
    yield select(TicketTag.ticket_id).where(TicketTag.tag == tag, TicketTag.ticket_id == row.id).exists()


def find_similar(session: Session, digest: str, reader: Account | None) -> Sequence[int]:
    """Return listings of other tickets that share most of a ticket's sketch, if the reader may see it."""
    return list(count_shared(session, digest, reader, MOST_SIMILAR))


def count_shared(session: Session, digest: str, reader: Account | None, limit: int) -> dict[int, int]:
    """Return the listings of other tickets that share most of a ticket's sketch (least hashes of its masks),
    the most alike first -> how many of the SKETCH numbers they share; none of a ticket that the reader may
    not see."""
    own = select(Listing.id).where(Listing.digest == digest, visible_to(reader)).order_by(Listing.id).limit(1)
    numbers = select(TicketSketch.number).where(TicketSketch.ticket_id == own.scalar_subquery())
    sharing = select(TicketSketch.ticket_id).where(TicketSketch.number.in_(numbers)).limit(MOST_SHARING)
    shared = sharing.subquery()
    query = select(shared.c.ticket_id, func.count()).join(Listing, Listing.id == shared.c.ticket_id)
    query = query.where(Listing.digest != digest, visible_to(reader)).group_by(shared.c.ticket_id)
    alike = query.order_by(func.count().desc(), shared.c.ticket_id).limit(limit)
    return dict(session.execute(alike).all())


def _is_similar(terms: Terms, row: Row, digest: str) -> Iterator[ColumnElement[bool]]:
    yield row.id.in_(find_similar(terms.session, digest, terms.reader))


def _is_best_of_run(terms: Terms, row: Row, _: str) -> Iterator[ColumnElement[bool]]:
    """Yield the condition that no other listing of the same search job is found before this one."""
    other = aliased(Listing)
    same = (other.job_id == row.job_id, *terms.of(other, without=("collapse",)))
    yield ~select(other.id).where(*same, is_before(terms.search, other, row)).exists()


def is_before(search: Search, one: Row, other: Row) -> ColumnElement[bool]:
    """Return the condition that a row comes before another one in the order of a search."""
    first, second = (column_of(search.column, row) for row in (one, other))
    if search.descending:
        return or_(first > second, and_(first == second, one.id > other.id))
    return or_(first < second, and_(first == second, one.id < other.id))


CONDITIONS: dict[str, Callable[[Terms, Row, str], Iterable[ColumnElement[bool]]]] = {
    "q": _has_words,
    "owner": _is_owned_by,
    "tag": _has_tag,
    "similar_to": _is_similar,
    "collapse": _is_best_of_run,
    "include_yanked": lambda *_: (),  # it takes a condition away
}
"""The conditions of the filters that are no column of the listing."""
