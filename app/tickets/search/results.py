"""Search: pages of listings, their totals and facets, and lineage.

No list counts what nobody reads. A page costs its rows (`plans.py`). Totals and facets come from kept counts
(`counts.py`) where these can tell, else from few candidates or from the newest LOOKS listings, and then they
are estimates and say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, aliased, defer, joinedload

from app.accounts.models import Account
from app.db import is_among
from app.pagination import DEFAULT_LIMIT, Page, SortValue, binding, cut_both, read_cursor
from app.tickets.models import Listing, ListingGroup
from app.tickets.search.conditions import (
    FACETS,
    MOST_SIMILAR,
    Row,
    Search,
    column_of,
    count_shared,
    visible_to,
)
from app.tickets.search.counts import count_by, find_groups
from app.tickets.search.plans import Hit, Plan, hit_of, make_plan, newest
from app.tickets.search.text import RANKS, Words
from nirvana.verification.fingerprint import SKETCH

MAX_FACET_VALUES = 50
LOOKS = 1000
CHUNK = 300
MOST_EDGES = 200
MOST_ID = 2**31 - 1  # that PostgreSQL's column holds
NARROW = (
    joinedload(Listing.owner),
    *(defer(column, raiseload=True) for column in (Listing.card, Listing.description, Listing.warnings)),
)
"""What a list reads of a listing: nothing wide."""
Ranked = tuple[int, int]
"""The rank and the id of a hit."""


def search_tickets(
    session: Session,
    search: Search,
    *,
    reader: Account | None = None,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
    facets: tuple[str, ...] = (),
) -> Page[Listing]:
    """Return one page of the listings that match, as `find_hits` does, with what a list shows of them."""
    page = find_hits(session, search, reader=reader, limit=limit, cursor=cursor, facets=facets)
    others = {one.name: getattr(page, one.name) for one in fields(page) if one.name != "rows"}
    return Page(load(session, [hit.id for hit in page.rows]), **others)


def find_hits(
    session: Session,
    search: Search,
    *,
    reader: Account | None = None,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
    facets: tuple[str, ...] = (),
) -> Page[Hit]:
    """Return one page of the hits of a search.

    Args:
        reader: whose private listings are searched as well.
        limit: most rows, 1 to 100.
        cursor: where the page begins, or where it ends; without one it also has the total.
        facets: FACETS' names whose values are counted, each without its own filter.

    Raises:
        InvalidCursor: the cursor is of another list.
    """
    plan, bound_to = make_plan(session, search, reader), binding(search, reader and reader.id)
    page = _read_page(plan, bound_to, limit, cursor)
    if cursor is None:
        total, is_exact = (len(page.rows), True) if page.next_cursor is None else _count(plan, len(page.rows))
        page = replace(page, total=total, total_is_exact=is_exact)
    more = _count_more(plan, page.rows) if search.filters.get("collapse") else {}
    counted, are_exact = _count_facets(plan, reader, facets)
    return replace(page, more=more, facets=counted, facets_are_exact=are_exact)


def _read_page(plan: Plan, bound_to: str, limit: int, cursor: str | None) -> Page[Hit]:
    """Return the hits of a page, with the cursors of those around it."""
    search, start, backwards = plan.terms.search, None, False
    column = column_of(search.column)
    if cursor is not None:
        kinds = (int, int, column.type.python_type, int)
        forward, rank, value, number = read_cursor(cursor, bound_to, kinds)
        start, backwards = (rank, value, max(-1, min(number, MOST_ID))), not forward
    if search.is_ranked:
        ranked = _find_ranked(plan, limit + 1, start and (start[0], start[2]), backwards)
    else:
        place = start and (start[1], start[2])
        ranked = dict.fromkeys(plan.top(limit + 1, place, backwards=backwards), 0)

    def key(hit: Hit) -> tuple[int, SortValue, int]:
        return ranked[hit], hit.place, hit.id

    return cut_both(list(ranked), limit, bound_to, key, (cursor is not None, backwards))


def load(session: Session, ids: Sequence[int]) -> list[Listing]:
    """Return the listings of these ids, in their order, with what a list shows of them."""
    query = select(Listing).where(is_among(session, Listing.id, ids)).options(*NARROW)
    rows = {row.id: row for row in session.scalars(query)}
    return [rows[number] for number in ids]


def _find_ranked(plan: Plan, limit: int, after: Ranked | None, backwards: bool) -> dict[Hit, int]:
    """Return hits of words, hit -> rank: the best rank first, and the newest first in each.

    Args:
        after: the hit that the ones before ended with.
    """
    descending = plan.terms.search.descending != backwards
    hits: dict[Hit, int] = {}
    for rank in RANKS if descending else reversed(RANKS):
        if after is not None and (rank < after[0] if descending else rank > after[0]):
            continue
        start = after[1] if after is not None and rank == after[0] else None
        hits |= dict.fromkeys(_of_rank(plan, rank, limit - len(hits), start, descending), rank)
        if len(hits) == limit:
            break
    return hits


def _of_rank(plan: Plan, rank: int, limit: int, after: int | None, descending: bool) -> list[Hit]:
    """Return the first hits of a rank that are of no better one."""
    terms, session = plan.terms, plan.terms.session
    words = Words.of(session, str(terms.search.filters["q"]))
    conditions = terms.of(Listing, without=("q",))
    if rank > RANKS[0]:
        conditions.append(~words.is_in(Listing.id, rank - 1))
    order = Listing.id.desc() if descending else Listing.id
    found: list[Hit] = []
    while len(found) < limit:
        if plan.ids is not None:
            some, own = list(plan.ids), [words.is_in(Listing.id, rank)]
            own += [] if after is None else [Listing.id < after if descending else Listing.id > after]
        else:
            some = words.find(session, rank, most=CHUNK, after=after, descending=descending)
            own = []
        is_some = is_among(session, Listing.id, some)
        query = select(*hit_of(terms.search.column)).where(is_some, *own, *conditions)
        rows = session.execute(query.order_by(order).limit(limit - len(found)))
        found += [Hit(*row) for row in rows]
        if plan.ids is not None or len(some) < CHUNK:
            break
        after = some[-1]
    return found


def _count(plan: Plan, least: int) -> tuple[int, bool]:
    """Return the number of hits, and True where it is exact.

    Args:
        least: how many there are at least, and one more.
    """
    terms = plan.terms
    if terms.reader is None and terms.search.is_grouped:
        return terms.listings, True
    _, conditions, scale = _look(plan)
    hits = terms.session.scalar(select(func.count()).where(*conditions)) or 0
    return max(least + 1, round(scale * hits)), scale == 1


def _count_facets(
    plan: Plan, reader: Account | None, names: Sequence[str]
) -> tuple[dict[str, dict[str, int]], bool]:
    """Count the hits of each value of each facet without the facet's own filter; True where that is exact."""
    session, search = plan.terms.session, plan.terms.search
    filtered = [name for name in names if name in search.filters]
    alike = [name for name in names if name not in search.filters]
    counted, are_exact = _count_values(plan, alike) if alike else ({}, True)
    for name in filtered:
        values, is_exact = _count_values(make_plan(session, search.without(name), reader), [name])
        counted, are_exact = counted | values, are_exact and is_exact
    return {name: counted[name] for name in names}, are_exact


def _count_values(plan: Plan, names: Sequence[str]) -> tuple[dict[str, dict[str, int]], bool]:
    """Count the hits of each value of these facets, the most frequent ones first; True where it is exact."""
    terms, keys = plan.terms, [FACETS[name] for name in names]
    if terms.reader is None and terms.search.is_grouped:
        of_group = terms.of_group()
        counts = [
            count_by(terms.session, key, (*of_group, column_of(key, ListingGroup) != ""), MAX_FACET_VALUES)
            for key in keys
        ]
        return dict(zip(names, counts, strict=True)), True
    row, conditions, scale = _look(plan)
    columns = [column_of(key, row) for key in keys]
    query = select(*columns, func.count()).where(*conditions).group_by(*columns)
    counters = {name: Counter[object]() for name in names}
    for *values, count in terms.session.execute(query):
        for name, value in zip(names, values, strict=True):
            counters[name][value] += count
    return {name: _scale(counter, scale) for name, counter in counters.items()}, scale == 1


def _scale(counter: Counter[object], scale: float) -> dict[str, int]:
    known = [item for item in counter.items() if item[0] is not None]
    order = sorted(known, key=lambda item: (-item[1], str(item[0])))
    return {str(value): round(scale * number) for value, number in order[:MAX_FACET_VALUES]}


def _look(plan: Plan) -> tuple[Row, Sequence[ColumnElement[bool]], float]:
    """Return the rows to count hits among: all hits, or those among the newest LOOKS listings (of the task).

    Returns:
        the rows, the conditions of a hit among them, and the number of listings that each one stands for.
    """
    terms = plan.terms
    if plan.ids is not None:
        return Listing, plan.checks(plan.ids), 1.0
    task = terms.search.filters.get("task")
    is_of = () if task is None else (ListingGroup.task == task,)
    scale = max(1.0, find_groups(terms.session, is_of, 1)[1] / LOOKS)
    row = newest(None if task is None else str(task), LOOKS)
    return row, terms.of(row), scale


def _count_more(plan: Plan, hits: Sequence[Hit]) -> Mapping[int, int]:
    """Return, for each hit that stands for a run of one job, how many others of the run match too."""
    jobs = {hit.job_id: hit.id for hit in hits if hit.job_id is not None}
    one = aliased(Listing)
    conditions = (one.job_id.in_(jobs), *plan.terms.of(one, without=("collapse",)))
    query = select(one.job_id, func.count()).where(*conditions).group_by(one.job_id)
    return Counter({jobs[job]: count - 1 for job, count in plan.terms.session.execute(query) if job in jobs})


def list_similar(
    session: Session, row: Listing, reader: Account | None, limit: int
) -> list[tuple[Listing, float]]:
    """Return the listings of other tickets whose first masks are most like a listing's, yanked ones left out,
    each with the share of the sketch that they have in common."""
    shared = count_shared(session, row.digest, reader, MOST_SIMILAR)
    rows = [one for one in load(session, list(shared)) if one.yanked_at is None][:limit]
    return [(one, min(1.0, shared[one.id] / SKETCH)) for one in rows]


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
    ancestors, seen = list[Listing](), {row.digest}
    while row.parent_digest is not None and len(ancestors) < limit:
        query = select(Listing).where(Listing.digest == row.parent_digest, visible_to(reader))
        if row.job_id is None:
            query = query.where(Listing.owner_id == row.owner_id)
        same_job = Listing.job_id == row.job_id if row.job_id else Listing.id == 0
        query = query.order_by(same_job.desc().nulls_last(), Listing.id).limit(1)
        parent = session.scalars(query.options(joinedload(Listing.owner))).one_or_none()
        if parent is None or parent.digest in seen:  # claims may go in a circle
            break
        ancestors.append(parent)
        seen.add(parent.digest)
        row = parent
    return ancestors


@dataclass(frozen=True)
class Edge:
    """A parent and what was pruned from it, as far as somebody says so.

    Attributes:
        parent: its listing; None: it is not here, or only a claim leads to a stranger's.
    """

    parent: Listing | None
    child: Listing

    @property
    def parent_digest(self) -> str:
        return str(self.child.parent_digest)

    @property
    def known_by(self) -> str:
        """`job`: the registry's own search cut the one from the other; `claim`: a file says so."""
        return "claim" if self.child.job_id is None else "job"

    @property
    def is_known(self) -> bool:
        """True unless it is a claim of a stranger's."""
        return self.parent is not None and (
            self.child.job_id is not None or self.child.owner_id == self.parent.owner_id
        )


def list_edges(session: Session, row: Listing, reader: Account | None) -> list[Edge]:
    """Return the tree that a listing stands in, from the first ancestor that is here down to the last of its
    descendants, at most MOST_EDGES; brothers and sisters are left out."""
    ancestors = list_ancestors(session, row, reader, MOST_EDGES)
    chain = [row, *ancestors]
    up = [Edge(parent, child) for child, parent in zip(chain, ancestors, strict=False)]
    if chain[-1].parent_digest not in (None, *(one.digest for one in chain)):
        up.append(Edge(None, chain[-1]))
    return [*reversed(up), *_list_descendants(session, row, reader, MOST_EDGES - len(up))]


def _list_descendants(session: Session, row: Listing, reader: Account | None, most: int) -> Iterator[Edge]:
    """Yield the edges below a listing, one generation after the other."""
    seen, generation = {row.id}, [row]
    while generation and most > 0:
        parents = {one.digest: one for one in reversed(generation)}
        is_known = or_(
            Listing.job_id.is_not(None), Listing.owner_id.in_({one.owner_id for one in generation})
        )
        query = select(Listing).where(Listing.parent_digest.in_(parents), visible_to(reader), is_known)
        query = query.options(joinedload(Listing.owner)).order_by(Listing.id).limit(MOST_EDGES)
        found = [Edge(parents[str(one.parent_digest)], one) for one in session.scalars(query)]
        edges = [edge for edge in found if edge.child.id not in seen and edge.is_known][:most]
        yield from edges
        generation = [edge.child for edge in edges]
        seen |= {child.id for child in generation}
        most -= len(edges)
