"""Ranges, cursors, and that every list goes by an index."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text

from app.accounts.service import create_account
from app.db import Database
from app.pagination import read_cursor, write_cursor
from app.storage import Storage
from app.tickets.publishing import Publication, publish_ticket
from app.tickets.search.conditions import Search
from app.tickets.search.results import search_tickets
from nirvana.client.filters import SORTS, Range, instant, integer, number, parse_range
from nirvana.errors import InvalidCursor, InvalidQuery
from tests.factories import make_ticket


def test_a_range_has_a_least_or_a_most_or_both() -> None:
    assert parse_range("density", "max:0.05", number) == Range(None, 0.05)
    assert parse_range("kept", "min:10,max:20", integer) == Range(10, 20)
    assert parse_range("created_at", "min:2026-11-21", instant) == Range(datetime(2026, 11, 21, tzinfo=UTC))


@pytest.mark.parametrize("bad", ["", "0.05", "max:", "max:inf", "max:1,", "least:1", "min:1,max:0", "max"])
def test_what_is_no_range_is_refused_with_an_example(bad: str) -> None:
    with pytest.raises(InvalidQuery, match="density"):
        parse_range("density", bad, number)


@given(st.text(max_size=200))
def test_no_text_breaks_the_grammar_of_ranges(text: str) -> None:
    for parse in (number, integer, instant):
        try:
            parse_range("x", text, parse)
        except InvalidQuery:
            continue


@given(st.floats(allow_nan=False), st.integers(-(2**62), 2**62), st.datetimes(timezones=st.just(UTC)))
def test_a_cursor_says_again_what_was_put_in(value: float, number: int, at: datetime) -> None:
    written = write_cursor("here", (value, number, at))
    assert read_cursor(written, "here", (float, int, datetime)) == (value, number, at)
    with pytest.raises(InvalidCursor):
        read_cursor(written, "elsewhere", (float, int, datetime))


@given(st.text(max_size=100))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        read_cursor(text, "here", (int,))


CASES = [
    Search(),
    Search({"task": "digits"}),
    Search({"architecture": "mlp-16"}),
    Search({"q": "mlp"}),
    Search({"tag": "small"}),
    Search({"owner": "ada"}),
]


@pytest.mark.parametrize("sort", SORTS)
def test_every_search_goes_by_an_index(database: Database, storage: Storage, sort: str) -> None:
    with database.write() as session:
        ada = create_account(session, "ada")
        for seed in range(3):
            data = make_ticket(seed=seed).to_bytes()
            publish_ticket(session, storage, data, Publication(ada, f"t{seed}"))
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with database.read() as session:
        if database.engine.dialect.name == "postgresql":
            session.execute(text("SET enable_seqscan = off"))
        event.listen(database.engine, "before_cursor_execute", note)
        for search in CASES:
            search = replace(search, sort=sort)
            page = search_tickets(session, search, limit=1)
            search_tickets(session, search, limit=1, cursor=page.next_cursor)
        event.remove(database.engine, "before_cursor_execute", note)
        explain = "EXPLAIN QUERY PLAN" if database.engine.dialect.name == "sqlite" else "EXPLAIN"
        listing = [executed for executed in statements if "FROM ticket" in executed[0]]
        assert len(listing) >= 2 * len(CASES)
        for statement, parameters in listing:
            plan = session.connection().exec_driver_sql(f"{explain} {statement}", parameters)
            assert_by_index([str(row) for row in plan])


def assert_by_index(plan: list[str]) -> None:
    """No table of tickets is read whole without an index."""
    whole = [line for line in plan if "Seq Scan on ticket" in line]
    whole += [
        line for line in plan if "SCAN ticket" in line and not re.search("USING|VIRTUAL TABLE INDEX", line)
    ]
    assert not whole, plan


def test_a_rare_word_spares_the_database_all_hits_of_a_common_one(
    database: Database, storage: Storage
) -> None:
    with database.write() as session:
        ada = create_account(session, "ada")
        for seed in range(3):
            ticket = make_ticket(seed=seed, description="a unicorn" if seed == 1 else "a horse")
            publish_ticket(session, storage, ticket.to_bytes(), Publication(ada, f"t{seed}"))
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if re.match(r"SELECT (rowid|ticket_id)\s+FROM ticket_text", statement):
            asked.append(str(parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.read() as session:
        page = search_tickets(session, Search({"q": "unicorn ada"}, sort="accuracy"))
        assert [row.name for row in page.rows] == ["t1"]
        assert (len(asked), "unicorn" in asked[0], "ada" in asked[0]) == (1, True, False)
        assert not search_tickets(session, Search({"q": "unicorn horse"})).rows
    event.remove(database.engine, "before_cursor_execute", note)
