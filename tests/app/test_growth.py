"""A search costs its page: what it reads does not grow with the table.

SQLite counts the instructions of its virtual machine, PostgreSQL the rows that its plans handled; neither is
a time. Listings are generated and inserted in bulk (`benchmarks.registry`), and the service's bounds are made
small, so that a small registry is beyond them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.organisations.roles import Membership
from app.db import Database, make_engine
from app.tasks.boards import entries, frontier, leaderboard, references
from app.tasks.service import list_tasks, sync_tasks
from app.tickets.models import Listing
from app.tickets.search import conditions, plans, results
from app.tickets.search.conditions import Search, read_search
from app.tickets.search.results import search_tickets
from app.tickets.service import find_copies, read_gauges
from benchmarks.registry import seed
from tests.registry import EACH, Templates

SIZES = (5_000, 20_000)
BOUNDS = {conditions: {"FEW": 20}, plans: {"FEW": 20}, results: {"LOOKS": 100, "CHUNK": 60}}
LIMIT = 3
MOST_GROWTH = 1.5  # of four times the listings
FLOORS = {"sqlite": 20_000, "postgresql": 12_000}  # less than reading all of the greater table once
FACETS = ("task", "architecture", "method", "verdict")
PUBLISHED: dict[str, dict[str, str]] = {
    "newest": {},
    "by accuracy": {"sort": "accuracy"},
    "by downloads": {"sort": "downloads"},
    "task, density, by accuracy": {"task": "mnist", "density": "max:0.05", "sort": "accuracy"},
    "smallest that reaches 98 %": {"task": "mnist", "accuracy": "min:0.98", "sort": "kept"},
    "two equal values": {"architecture": "lenet-5", "method": "imp", "sort": "density"},
    "no hits": {"task": "digits", "architecture": "conv-4"},
    "range without hits": {"density": "max:0.00001", "sort": "accuracy"},
    "owner without tickets": {"owner": "idle"},
    "nobody": {"owner": "nobody"},
    "a common word": {"q": "lenet"},
    "a common word by accuracy": {"q": "lenet", "sort": "accuracy"},
    "one letter": {"q": "l"},
    "36 words": {"q": " ".join(["lenet", *(f"w{number}" for number in range(35))])},
    "one row a run": {"collapse": "true", "sort": "accuracy"},
}


@pytest.fixture(scope="module", params=EACH)
def registries(
    request: pytest.FixtureRequest, templates: Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Database]]:
    """A small registry and one of ten times its listings."""
    made = []
    folders = [tmp_path_factory.mktemp(f"listings-{size}") for size in SIZES]
    with templates.copy(request.param, folders[0]) as small, templates.copy(request.param, folders[1]) as big:
        for url, home, size in zip((small, big), folders, SIZES, strict=True):
            seed(url, Path(home), size)
            database = Database(make_engine(url))
            with database.write() as session:
                sync_tasks(session)
            made.append(database)
        yield made
        for database in made:
            database.dispose()


class Meter:
    """What a database did: instructions of SQLite, rows of PostgreSQL."""

    def __init__(self, session: Session) -> None:
        self.session, self.done = session, 0
        self.statements: list[tuple[str, Any]] = []
        self.engine = session.get_bind().engine
        self.connection = session.connection().connection.driver_connection
        self.is_sqlite = self.engine.dialect.name == "sqlite"

    def __enter__(self) -> Meter:
        if self.is_sqlite:
            self.connection.set_progress_handler(self._tick, 10)  # type: ignore[union-attr]
        else:
            event.listen(self.engine, "before_cursor_execute", self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_sqlite:
            self.connection.set_progress_handler(None, 0)  # type: ignore[union-attr]
            return
        event.remove(self.engine, "before_cursor_execute", self._note)
        explain = "EXPLAIN (ANALYZE, FORMAT JSON, TIMING off)"
        for statement, parameters in self.statements:
            result = self.session.connection().exec_driver_sql(f"{explain} {statement}", parameters)
            self.done += rows_of(result.scalar_one()[0]["Plan"])

    def _tick(self) -> int:
        self.done += 10
        return 0

    def _note(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        self.statements.append((statement, parameters))


def rows_of(plan: dict[str, Any]) -> int:
    """The rows that a plan's nodes gave or threw away."""
    own = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    rows = plan["Actual Loops"] * sum(plan.get(name, 0) for name in own)
    return int(rows) + sum(rows_of(part) for part in plan.get("Plans", ()))


def cost(
    database: Database,
    wanted: Search | None,
    facets: tuple[str, ...] = (),
    reader: Account | None = None,
) -> int:
    """What the database does for a first page, with its total, and for the one after it."""
    with database.read() as session, Meter(session) as meter:
        if wanted is None:
            list_tasks(session, limit=100)
            list(read_gauges(session))
            page = leaderboard(session, "mnist", limit=LIMIT, cursor=None, brought_in=True)
            entries(session, page.rows)
            references(session, "mnist")
            frontier(session, "mnist", brought_in=True)
            frontier(session, "mnist")
        else:
            page = search_tickets(session, wanted, reader=reader, limit=LIMIT, facets=facets)
            find_copies(session, page.rows)
            if page.next_cursor:
                search_tickets(session, wanted, reader=reader, limit=LIMIT, cursor=page.next_cursor)
    return meter.done


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, bounds in BOUNDS.items():
        for name, value in bounds.items():
            monkeypatch.setattr(module, name, value)


def refuse_growth(registries: list[Database], costs: dict[str, list[int]], a_row: float = 1.0) -> None:
    """Compare the costs of both registries.

    Args:
        a_row: what one costs, of an anonymous search's.
    """
    floor = a_row * FLOORS[registries[0].engine.dialect.name]
    grown = {name: big / max(small, floor) for name, (small, big) in costs.items()}
    assert {name: (grown[name], costs[name]) for name in grown if grown[name] > MOST_GROWTH} == {}


def test_no_published_query_grows_with_the_table(registries: list[Database]) -> None:
    costs = {name: [cost(one, read_search(query)) for one in registries] for name, query in PUBLISHED.items()}
    costs["facets"] = [cost(one, Search(), FACETS) for one in registries]
    filtered = read_search({"task": "mnist", "density": "max:0.05"})
    costs["facets, filtered"] = [cost(one, filtered, FACETS) for one in registries]
    costs["tasks, a task and metrics"] = [cost(one, None) for one in registries]
    refuse_growth(registries, costs)


def join_a_large_organisation(database: Database) -> Account:
    """A new member of the owner of a quarter of all listings."""
    with database.write() as session:
        member = Account(id=100_001, name="member")  # accounts were inserted with ids of their own
        lab = Account(id=100_002, name="lab", is_organisation=True)
        session.add_all([member, lab])
        session.flush()
        session.add(Membership(organisation_id=lab.id, account_id=member.id, role="reader"))
        moved = update(Listing).where(Listing.id % 4 == 0).values(owner_id=lab.id)
        session.execute(moved.execution_options(synchronize_session=False))
        return member


def test_nor_does_a_search_of_a_member_of_a_large_organisation(registries: list[Database]) -> None:
    readers = [join_a_large_organisation(one) for one in registries]
    for of in ("many private ones", "few"):
        costs = {
            f"{name}, {of}": [
                cost(one, read_search(query), reader=reader)
                for one, reader in zip(registries, readers, strict=True)
            ]
            for name, query in PUBLISHED.items()
        }
        refuse_growth(registries, costs, a_row=1.25)  # whose it is is looked at, too
        for one in registries:
            with one.write() as session:
                some = Listing.visibility == "private", Listing.id % 4 == 0, Listing.id > 200
                shown = update(Listing).where(*some).values(visibility="public")
                session.execute(shown.execution_options(synchronize_session=False))
