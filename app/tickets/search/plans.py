"""The way that a search takes, so that it costs its page and not the table.

Each way reads a bounded number of rows, or a number that the share of hits alone decides:

- what is rare (an owner, a tag, words, a range, a combination of values) is looked up first: at most FEW ids;
- what is common is met soon by walking an index in the order of the search;
- what is common in all but lies far down that order (the smallest of the accurate ones) is merged from parts,
  each of which is walked in the order by an index of its own: groups of equal values, or bands of a range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVarTuple

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    Select,
    UnaryExpression,
    asc,
    desc,
    or_,
    select,
    true,
    values,
)
from sqlalchemy import column as name_column
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.operators import custom_op

from app.accounts.models import Account
from app.accounts.organisations.roles import list_owner_ids
from app.db import is_among
from app.evaluations.models import band_of_accuracy
from app.pagination import SortValue
from app.tickets.models import IS_PRIVATE, ORDERS, Listing, TicketTag, band_of_density
from app.tickets.search.conditions import (
    COLUMNS,
    FEW,
    Column,
    Row,
    Search,
    Terms,
    column_of,
    find_owner,
    find_similar,
)
from app.tickets.search.text import ANYWHERE, Words
from nirvana.client.filters import Range

CHECKED = sorted({*COLUMNS.values(), *ORDERS, "kept_parameters"} - {"train_bytes"})
CHECKED += ["id", "owner_id", "job_id", "visibility", "yanked_at", "quarantined_at", "is_copy"]
"""Columns that conditions look at."""
MOST_GROUPS = 32
Columns = TypeVarTuple("Columns")
Place = tuple[SortValue, int]
"""The sort value and the id of a row."""


class Hit(NamedTuple):
    """What a search reads of a listing that it finds; `place` is the value that the search goes by."""

    id: int
    place: SortValue
    version: int
    downloads: int
    job_id: str | None


def hit_of(column: str, row: Row = Listing) -> tuple[ColumnElement[Any] | Column, ...]:
    """Return the columns of a hit, of a search that goes by a column."""
    return row.id, column_of(column, row).label("place"), row.version, row.downloads, row.job_id


@dataclass(frozen=True)
class Parts:
    """The values of a column that the hits have; within each one an index has the order of the search."""

    column: str
    values: Sequence[int]


@dataclass(frozen=True)
class Plan:
    """A search, and the way that it takes.

    Attributes:
        ids: all that can be found, where that is little; None: it is not.
        parts: what is merged; None: the index of the order is walked.
    """

    terms: Terms
    ids: Sequence[int] | None = None
    parts: Parts | None = None

    def top(self, limit: int, after: Place | None = None, *, backwards: bool = False) -> list[Hit]:
        """Return the first hits in the order of the search.

        Args:
            limit: the most hits.
            after: the row that the ones before ended with.
            backwards: in the opposite order.
        """
        if self.ids is not None and not self.ids:
            return []
        session, search = self.terms.session, self.terms.search
        step = _Step(search.column, search.descending != backwards, after, limit)
        if self.parts is not None:
            query = _merge(self.terms, self.parts, step)
        else:
            conditions = _walked(self.terms, Listing) if self.ids is None else self.checks(self.ids)
            query = step.apply(select(*hit_of(step.column)).where(*conditions), Listing)
        return [Hit(*row) for row in session.execute(query)]

    def checks(self, ids: Sequence[int]) -> list[ColumnElement[bool]]:
        """Return the conditions of those of these listings that the search finds."""
        is_one = is_among(self.terms.session, Listing.id, ids)
        return [is_one, *_without_index(self.terms, self.terms.of(Listing))]


@dataclass(frozen=True)
class _Step:
    """The next rows of an order."""

    column: str
    descending: bool
    after: Place | None
    limit: int

    def apply(self, query: Select[*Columns], row: Row) -> Select[*Columns]:
        column, direction = column_of(self.column, row), desc if self.descending else asc
        if self.after is not None:
            value, number = self.after
            if self.descending:
                query = query.where(column <= value, or_(column < value, row.id < number))
            else:
                query = query.where(column >= value, or_(column > value, row.id > number))
        return query.order_by(direction(column), direction(row.id)).limit(self.limit)


def newest(task: str | None, limit: int) -> Row:
    """Return an alias of the newest listings (of a task), whoever may see them, as rows that are read first
    and then checked."""
    query = select(*(column_of(name) for name in CHECKED))
    if task is not None:
        query = query.where(Listing.task == task)
    step = _Step("created_at", True, None, limit)
    return aliased(Listing, step.apply(query, Listing).subquery())


def make_plan(session: Session, search: Search, reader: Account | None) -> Plan:
    """Choose the way of a search."""
    private = _find_private(session, reader) if reader is not None else []
    terms = Terms(session, search, reader if private else None, private if len(private) <= FEW else None)
    for ids in _few(terms):
        if len(ids) <= FEW:
            return Plan(terms, ids=ids)
    return Plan(terms, parts=_bands(search) or _groups(terms))


def _find_private(session: Session, reader: Account) -> Sequence[int]:
    """Return the private listings that a reader sees, at most FEW + 1, by the index that has no others."""
    owned = Listing.owner_id.in_(list_owner_ids(session, reader))
    return session.scalars(select(Listing.id).where(owned, IS_PRIVATE).limit(FEW + 1)).all()


def _few(terms: Terms) -> Iterator[Sequence[int]]:
    """Yield what each filter by itself lets through, at most FEW + 1 ids of it."""
    session, filters = terms.session, terms.search.filters
    if "owner" in filters:
        owner = find_owner(session, str(filters["owner"]))
        yield _first(session, Listing.owner_id == owner) if owner is not None else []
    if "tag" in filters:
        query = select(TicketTag.ticket_id).where(TicketTag.tag == str(filters["tag"]))
        yield session.scalars(query.limit(FEW + 1)).all()
    if "q" in filters:
        words = Words.of(session, str(filters["q"]))
        yield from (one.find(session, ANYWHERE, most=FEW + 1) for one in words.likely_rare())
        yield words.find(session, ANYWHERE, most=FEW + 1)
    if "similar_to" in filters:
        yield find_similar(session, str(filters["similar_to"]), terms.reader)
    if terms.search.names_groups:
        groups, listings = terms.groups
        if listings <= FEW:
            yield _first(session, is_among(session, Listing.group_id, groups)) if groups else []
    for name, value in filters.items():
        if isinstance(value, Range) and COLUMNS[name] in ORDERS and COLUMNS[name] != terms.search.column:
            yield from _in_range(terms, name)


def _in_range(terms: Terms, name: str) -> Iterator[Sequence[int]]:
    """Yield what a range lets through, unless that is more than FEW, as it often is."""
    names = {name, "task"} & terms.search.filters.keys()
    conditions = list(terms.of_filters(Listing, names))
    one_more = select(Listing.id).where(*conditions).order_by(column_of(COLUMNS[name])).offset(FEW).limit(1)
    if terms.session.scalar(one_more) is None:
        yield _first(terms.session, *conditions)


def _first(session: Session, *conditions: ColumnElement[bool]) -> Sequence[int]:
    return session.scalars(select(Listing.id).where(*conditions).limit(FEW + 1)).all()


def _bands(search: Search) -> Parts | None:
    """Return the bands of a range that lies across the order of the search."""
    filters = search.filters
    if "task" not in filters:
        return None
    accuracy, density = filters.get("accuracy"), filters.get("density")
    if search.column == "kept" and isinstance(accuracy, Range) and accuracy.minimum is not None:
        ends = accuracy.minimum, _most(accuracy)
        first, last = (band_of_accuracy(_inside(end, 0.0, 1.0)) for end in ends)
        return Parts("accuracy_band", range(first, last + 1))
    if search.column == "sort_accuracy" and isinstance(density, Range):
        least = density.minimum if density.minimum is not None else 0.0
        last, first = (band_of_density(_inside(end, 0.0, 1.0)) for end in (least, _most(density)))
        return Parts("density_band", range(first, last + 1))
    return None


def _most(chosen: Range) -> object:
    return 1.0 if chosen.maximum is None else chosen.maximum


def _inside(value: object, least: float, most: float) -> float:
    assert isinstance(value, int | float)
    return min(max(float(value), least), most)


def _groups(terms: Terms) -> Parts | None:
    """Return the groups of a search by equal values, where they are not many."""
    if not terms.search.names_groups or len(terms.groups[0]) > MOST_GROUPS:
        return None
    return Parts("group_id", terms.groups[0])


def _merge(terms: Terms, parts: Parts, step: _Step) -> Select[Any]:
    """Select the first hits of all parts from the first ones of each."""
    part = values(name_column("value", Integer), name="part").data([(value,) for value in parts.values])
    listed = part.cte("part")
    one, other = aliased(Listing), aliased(Listing)
    conditions = (column_of(parts.column, one) == listed.c.value, *_walked(terms, one, parts.column))
    last = replace(step, after=None)
    if terms.session.get_bind().dialect.name == "sqlite":
        top = step.apply(select(one.id).where(*conditions), one).correlate(listed)
        hits = select(*hit_of(step.column, other)).select_from(listed)
        return last.apply(hits.join(other, other.id.in_(top)), other)
    columns = (one.id, column_of(step.column, one), one.version, one.downloads, one.job_id)
    first = aliased(Listing, step.apply(select(*columns).where(*conditions), one).correlate(listed).lateral())
    return last.apply(select(*hit_of(step.column, first)).select_from(listed).join(first, true()), first)


def _walked(terms: Terms, row: Row, leading: str | None = None) -> list[ColumnElement[bool]]:
    """Return the conditions of rows that are read in the order of an index.

    Args:
        leading: the column of the parts that are merged.
    """
    names = terms.search.filters.keys()
    own = {name for name in names if COLUMNS.get(name) == terms.search.column}
    own |= {"task"} & names if leading != "group_id" else set()
    return [*terms.of_filters(row, own), *_without_index(terms, terms.of(row, without=own))]


def _without_index(terms: Terms, conditions: Iterable[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
    """Return conditions that rows are checked by. SQLite's planner shall take no index of theirs instead of
    the one that the search goes by: a unary plus says so."""
    if terms.session.get_bind().dialect.name != "sqlite":
        return list(conditions)
    plus = custom_op[bool]("+")
    return [UnaryExpression(one.self_group(), operator=plus, type_=Boolean()) for one in conditions]
