"""Publishes that go together, and those that have to go alone."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import event, func, select

from app.accounts.models import Account
from app.accounts.service import create_account
from app.changes.service import list_changes
from app.db import Database, utc_now
from app.storage import Storage
from app.tickets.commits import Commits, Entry, Published, publish_all
from app.tickets.files.checking import check_file
from app.tickets.models import IdempotencyKey, Listing, ListingGroup, TicketSketch
from app.tickets.publishing import Publication, insert_listing, store_blob
from app.tickets.service import get_own
from nirvana.errors import IdempotencyMismatch, NameTaken, Unavailable
from nirvana.format.reader import DEFAULT_LIMITS
from tests.factories import make_ticket, permute_units
from tests.registry import EACH, VERDICT, measure

FILES = [make_ticket(seed=seed).to_bytes() for seed in range(6)]
CHECKED = [check_file(data, DEFAULT_LIMITS) for data in FILES]


@pytest.fixture
def ada(database: Database) -> Account:
    return make_account(database, "ada")


def make_account(database: Database, name: str) -> Account:
    with database.write() as session:
        return create_account(session, name)


def entry(owner: Account, number: int, name: str | None = None, key: str | None = None) -> Entry:
    checked, name = CHECKED[number], name or f"t{number}"
    asked = {"name": name, "file": checked.file_digest}
    return Entry(checked, Publication(owner, name), key, asked)


def published(outcomes: Sequence[Published | Exception]) -> list[Published]:
    """The outcomes, none of which is a refusal."""
    assert not [one for one in outcomes if isinstance(one, Exception)]
    return [one for one in outcomes if isinstance(one, Published)]


def test_plain_publishes_go_in_one_transaction_and_each_is_whole(database: Database, ada: Account) -> None:
    bob, commits = make_account(database, "bob"), list[object]()
    event.listen(database.engine, "commit", commits.append)
    entries = [entry(ada if number % 2 else bob, number) for number in range(6)]
    done = published(publish_all(database, entries))
    assert len(commits) == 1
    assert all(one.is_new and one.is_lone for one in done)
    with database.read() as session:
        for one, wanted in zip(done, entries, strict=True):
            row = get_own(session, wanted.publication.owner, wanted.publication.name)
            columns = select(Listing.__table__).where(Listing.id == row.id)
            stored = session.execute(columns).mappings().one()
            for column in Listing.__table__.columns:
                if column.name != "group_id":
                    assert getattr(one.row, column.name) == stored[column.name], column
            assert (one.row.train_bytes, one.row.owner.name) == (row.train_bytes, row.owner.name)
            assert (one.row.blob.digest, one.row.blob.size_bytes) == (row.blob.digest, row.blob.size_bytes)
            numbers = session.scalars(select(TicketSketch.number).where(TicketSketch.ticket_id == row.id))
            assert sorted(numbers) == wanted.checked.sketch
        sizes = {
            name: sum(one.row.blob.size_bytes for one in done if one.row.owner.name == name)
            for name in ("ada", "bob")
        }
        for account in session.scalars(select(Account)):
            assert (account.tickets, account.stored_bytes) == (3, sizes[account.name])
        assert session.scalar(select(func.sum(ListingGroup.listings))) == 6
        changes = list_changes(session, 0, 9)
        assert [(row[0], row[1]) for row in changes] == [(number, "published") for number in range(1, 7)]
        assert {row[5] for row in changes} == {f"t{number}" for number in range(6)}


def test_one_that_is_refused_takes_nobody_with_it(database: Database, ada: Account) -> None:
    publish_all(database, [entry(ada, 0, "taken")])
    outcomes = publish_all(database, [entry(ada, 1), entry(ada, 2, "taken"), entry(ada, 3)])
    assert isinstance(outcomes[1], NameTaken)
    assert [one.row.name for one in published([outcomes[0], outcomes[2]])] == ["t1", "t3"]


def test_of_two_for_one_name_one_gets_it_and_the_same_ticket_twice_is_one_listing(
    database: Database, ada: Account
) -> None:
    outcomes = publish_all(database, [entry(ada, 0, "prize"), entry(ada, 1, "prize"), entry(ada, 2)])
    assert [isinstance(one, NameTaken) for one in outcomes] == [False, True, False]
    twins = published(publish_all(database, [entry(ada, 3, "twin"), entry(ada, 3, "twin")]))
    assert [one.is_new for one in twins] == [True, False]
    assert twins[0].row.id == twins[1].row.id


def test_keys_hold_when_they_come_together(database: Database, ada: Account) -> None:
    outcomes = publish_all(database, [entry(ada, 0, key="k"), entry(ada, 1, key="k"), entry(ada, 2, key="l")])
    assert isinstance(outcomes[1], IdempotencyMismatch)
    assert len(published([outcomes[0], outcomes[2]])) == 2
    again = published(publish_all(database, [entry(ada, 0, key="k"), entry(ada, 3)]))
    assert [one.is_new for one in again] == [False, True]


def test_a_refused_publish_does_not_use_up_its_key(database: Database, ada: Account) -> None:
    publish_all(database, [entry(ada, 0, "taken")])
    outcomes = publish_all(database, [entry(ada, 1, "taken", key="k"), entry(ada, 2)])
    assert isinstance(outcomes[0], NameTaken)
    with database.read() as session:
        assert session.scalars(select(IdempotencyKey)).all() == []


def test_where_the_transaction_fails_everybody_goes_alone(database: Database, ada: Account) -> None:
    """An account that is not there breaks a foreign key, and with it the transaction of all."""
    nobody = Account(id=999, name="nobody", created_at=utc_now())
    outcomes = publish_all(database, [entry(ada, 0), entry(nobody, 1), entry(ada, 2)])
    assert isinstance(outcomes[1], Exception)
    assert [one.row.name for one in published([outcomes[0], outcomes[2]])] == ["t0", "t2"]
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Listing)) == 2
        assert session.get_one(Account, ada.id).tickets == 2
        assert len(list_changes(session, 0, 9)) == 2


def test_copies_that_come_together_are_copies_and_nothing_is_said_of_them_in_haste(
    database: Database, ada: Account
) -> None:
    ticket = make_ticket(seed=9)
    permuted = check_file(permute_units(ticket).to_bytes(), DEFAULT_LIMITS)
    first = check_file(ticket.to_bytes(), DEFAULT_LIMITS)
    bob = make_account(database, "bob")
    entries = [
        Entry(first, Publication(ada, "first")),
        Entry(permuted, Publication(bob, "permuted")),
        Entry(first, Publication(bob, "same")),
        entry(ada, 0),
    ]
    done = published(publish_all(database, entries))
    assert [one.is_lone for one in done] == [False, False, False, True]
    with database.read() as session:
        listed = select(Listing).order_by(Listing.id)
        marked = {row.name: row.is_copy for row in session.scalars(listed)}
    assert marked["t0"] is False
    assert sorted(marked.values()) == [False, False, True, True]


def test_a_ticket_that_was_examined_or_pruned_from_or_says_its_parent_is_not_alone(
    database: Database, ada: Account
) -> None:
    parent = CHECKED[0]
    child = check_file(
        make_ticket(provenance={"parent": parent.fields["digest"]}, seed=7).to_bytes(), DEFAULT_LIMITS
    )
    with database.write() as session:
        measure(session, CHECKED[1].fields["digest"], VERDICT)
    entries = [Entry(child, Publication(ada, "child")), entry(ada, 0), entry(ada, 1), entry(ada, 2)]
    done = published(publish_all(database, entries))
    assert [one.is_lone for one in done] == [False, False, False, True]


@pytest.mark.parametrize("settings", EACH[1:], indirect=True)  # SQLite has one writer
def test_a_batch_that_meets_somebody_who_takes_a_name_meanwhile_loses_nobody(
    database: Database, storage: Storage, ada: Account
) -> None:
    """The name is taken between the look at the names and the insert, by another connection's transaction."""
    store_blob(storage, FILES[5], CHECKED[5])
    publish_all(database, [entry(ada, 4)])  # so that the network is there, for whose row nobody waits then
    taken = list[str]()

    def take(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO ticket ") and not taken:
            taken.append(statement)
            with Database(database.engine).write() as session:
                insert_listing(session, CHECKED[5], Publication(ada, "t1"))

    event.listen(database.engine, "before_cursor_execute", take)
    outcomes = publish_all(database, [entry(ada, 0), entry(ada, 1), entry(ada, 2)])
    assert taken
    assert isinstance(outcomes[1], NameTaken)
    assert [one.row.name for one in published([outcomes[0], outcomes[2]])] == ["t0", "t2"]


def test_a_crowd_is_refused_and_those_who_wait_are_published(database: Database, ada: Account) -> None:
    commits = Commits(database, most_waiting=4)
    outcomes = list[Published]()

    async def send(number: int) -> None:
        outcomes.append(await commits.publish(entry(ada, number)))

    async def crowd() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(send, number)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(Unavailable, match="4 others wait"):
                await commits.publish(entry(ada, 4))

    anyio.run(crowd)
    assert sorted(one.row.name for one in outcomes) == ["t0", "t1", "t2", "t3"]
    anyio.run(send, 5)  # and it begins again
    assert len(outcomes) == 5
