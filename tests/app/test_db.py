"""Sessions, transactions and what differs between the databases."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.service import create_account
from app.db import REST_SECONDS, Database, constraint_of, insert_if_absent, make_engine, unique
from app.tickets.models import Blob
from nirvana.errors import Conflict, NameTaken
from tests.registry import EACH


def names(session: Session) -> list[str]:
    return list(session.scalars(select(Account.name).order_by(Account.name)))


def test_an_exception_undoes_everything_of_its_transaction(database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            create_account(session, "ada")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as session:
        assert names(session) == []


def test_a_reader_neither_waits_for_a_writer_nor_sees_half_of_it(database: Database) -> None:
    with database.write() as writer:
        create_account(writer, "ada")
        began = time.monotonic()
        with database.read() as reader:
            assert names(reader) == []
        assert time.monotonic() - began < 1


def test_writers_wait_for_each_other_and_lose_nothing(database: Database) -> None:
    def add(name: str) -> None:
        with database.write() as session:
            before = len(names(session))
            time.sleep(0.02)
            session.add(Account(name=f"{name}-{before}"))

    writers = [threading.Thread(target=add, args=(f"w{n}",)) for n in range(5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with database.read() as session:
        assert len(names(session)) == 5


def test_a_reading_transaction_writes_nothing(database: Database) -> None:
    with suppress(DBAPIError), database.read() as session:  # PostgreSQL refuses, SQLite rolls back
        create_account(session, "ada")
    with database.read() as session:
        assert names(session) == []


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text("INSERT INTO ticket_tag (tag, ticket_id) VALUES ('x', 99)"))


def test_instants_come_back_aware_and_in_utc(database: Database) -> None:
    east = datetime(2026, 11, 21, 12, tzinfo=timezone(timedelta(hours=3)))
    with database.write() as session:
        session.add(Account(name="ada", created_at=east))
    with database.read() as session:
        found = session.scalars(select(Account.created_at)).one()
        assert found == east
        assert found.tzinfo is UTC
        assert session.scalars(select(Account.name).where(Account.created_at >= east)).one() == "ada"
    with pytest.raises(StatementError, match="time zone"), database.write() as session:
        session.add(Account(name="bob", created_at=datetime(2026, 1, 1)))


def test_a_broken_unique_constraint_is_known_by_its_name(database: Database) -> None:
    with database.write() as session:
        create_account(session, "ada")
    with pytest.raises(IntegrityError) as caught, database.write() as session:
        session.add(Account(name="ada"))
    assert constraint_of(caught.value) == "uq_account_name"
    with pytest.raises(NameTaken), database.write() as session:
        create_account(session, "ada")


def test_an_integrity_error_that_nobody_expected_stays_one(database: Database) -> None:
    with (
        pytest.raises(IntegrityError),
        database.write() as session,
        unique(session, {"uq_blob_digest": Conflict("x")}),
    ):
        session.add(Account(name=None))


def test_an_insertion_says_whether_it_was_the_first(database: Database) -> None:
    fields = {"digest": "d", "size_bytes": 1, "media_type": "x", "created_at": datetime.now(UTC)}
    with database.write() as session:
        assert insert_if_absent(session, Blob, **fields)
        assert not insert_if_absent(session, Blob, **fields)


@pytest.mark.parametrize("settings", EACH[1:], indirect=True)  # SQLite's connections are files
def test_a_connection_that_the_server_closed_meanwhile_is_replaced(database: Database) -> None:
    def backend() -> int:
        with database.read() as session:
            return int(session.scalar(text("SELECT pg_backend_pid()")))

    first = backend()
    assert backend() == first
    other = Database(make_engine(database.engine.url.render_as_string(hide_password=False)))
    with other.write() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": first})
    other.dispose()
    time.sleep(REST_SECONDS + 0.1)
    assert backend() != first
