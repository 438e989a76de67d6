"""Where a mask came from: attested, sealed or brought in, and what is shown by default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import select, text

from app.__main__ import alembic_config
from app.accounts.models import Account
from app.accounts.organisations.service import create_organisation
from app.accounts.service import create_account
from app.db import Database
from app.evaluations.models import Attestation
from app.evaluations.origins import Outcome, find_origins, list_attestations, record_attestation
from app.settings import Settings
from app.storage import Storage
from app.tasks.models import TaskRow
from app.tickets.models import Listing
from app.tickets.publishing import Publication, publish_ticket
from app.tickets.search.conditions import Search
from app.tickets.search.results import search_tickets
from nirvana import tasks
from nirvana.format.ticket import Ticket
from nirvana.tasks.task import Seal
from tests.app.test_exams import World, open_world
from tests.factories import make_masks, make_ticket, permute_units
from tests.registry import make_settings


@pytest.fixture
def world(database: Database, storage: Storage) -> Iterator[World]:
    with open_world(database, storage) as made:
        yield made


def attest(world: World, ticket: Ticket, outcome: str = "same", job: str = "job") -> None:
    found = ticket.digest if outcome != "differs" else "sha256:" + "0" * 64
    record_attestation(
        world.session, Outcome(ticket.digest, ticket.task, outcome, found, 1.0, {"nirvana": "x"}), job
    )


def origin(world: World, listing: Listing) -> str:
    world.session.refresh(listing, ["origin"])
    return listing.origin


def winners(world: World, reader: Account | None = None, **filters: str) -> list[str]:
    search = Search({"verdict": "WINNING", **filters})
    return sorted(row.name for row in search_tickets(world.session, search, reader=reader).rows)


def test_what_is_pushed_is_brought_in_whatever_its_provenance_says(world: World) -> None:
    claims = {"method": "imp", "level": 3, "order_seed": "17", "job": "0e2c", "attested": True}
    assert origin(world, world.publish("eve", "mine", make_ticket(provenance=claims))) == "brought-in"


def test_an_attestation_is_of_a_ticket_on_a_task_whoever_lists_it_by_whatever_recipe(world: World) -> None:
    ticket = make_ticket()
    one, other = world.publish("cleo", "one", ticket), world.publish("eve", "other", ticket)
    elsewhere = world.publish("eve", "elsewhere", make_ticket(task="mnist"))
    neighbour = world.publish("eve", "neighbour", make_ticket(masks=make_masks(ticket.architecture, 0.2, 9)))
    assert elsewhere.digest == ticket.digest
    version = one.version
    attest(world, ticket)
    assert [origin(world, row) for row in (one, other)] == ["attested"] * 2
    assert [origin(world, row) for row in (elsewhere, neighbour)] == ["brought-in"] * 2
    world.session.refresh(one)
    assert one.version == version + 1, "its page has changed"
    later = world.publish("dan", "later", make_ticket(description="mine", license="CC0-1.0"))
    assert origin(world, later) == "attested"


def test_a_search_that_gave_another_ticket_attests_nothing_and_takes_nothing_away(world: World) -> None:
    listing = world.publish("cleo", "one", make_ticket())
    attest(world, make_ticket(), "differs", "first")
    assert origin(world, listing) == "brought-in"
    attest(world, make_ticket(), "same", "second")
    attest(world, make_ticket(), "differs", "third")
    assert origin(world, listing) == "attested"
    found = list_attestations(world.session, listing.digest, "digits")
    assert [one.outcome for one in found] == ["differs", "same", "differs"]


def test_a_job_records_its_outcome_once(world: World) -> None:
    for _ in range(2):
        attest(world, make_ticket(), "same", "one-job")
    assert len(world.session.scalars(select(Attestation)).all()) == 1


def test_a_task_with_secret_rows_seals_and_one_with_public_ones_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, digits = make_ticket().digest, tasks.get("digits")
    for is_public, expected in ((True, "brought-in"), (False, "sealed")):
        task = type(digits)(**{**vars(digits), "seal": Seal(300, "0" * 64, is_public)})
        monkeypatch.setattr(tasks, "get", lambda name, task=task: task)
        ticket = (digest, "digits", 1)
        assert find_origins(world.session, [ticket]) == {ticket: expected}


def test_a_seal_says_nothing_of_its_maker_nor_of_an_organisation_that_has_that_member(
    world: World, tmp_path: Path
) -> None:
    session, settings = world.session, make_settings(tmp_path)
    ada, bob = (create_account(session, name) for name in ("ada", "bob"))
    session.flush()
    lab = create_organisation(session, settings, ada, "lab")
    about = {"name": "ada/flowers", "body": {"seal": {"size": 20}}, "stored_bytes": 0}
    session.add(TaskRow(**about, owner_id=ada.id))
    session.flush()
    owners = {owner.name: ("sha256:" + "0" * 64, "ada/flowers", owner.id) for owner in (ada, bob, lab)}
    found = find_origins(session, list(owners.values()))
    origins = {name: found[ticket] for name, ticket in owners.items()}
    assert origins == {"ada": "brought-in", "bob": "sealed", "lab": "brought-in"}


def test_winners_are_attested_or_sealed_and_shown_once_unless_somebody_asks_for_more(world: World) -> None:
    ticket, other = make_ticket(), make_ticket(masks=make_masks(make_ticket().architecture, 0.2, 9))
    listings = [
        world.publish("cleo", "first", ticket),
        world.publish("eve", "bytes", ticket),
        world.publish("eve", "brought", other),
    ]
    permuted = world.publish("eve", "permuted", permute_units(ticket, 1))
    for listing in (*listings, permuted):
        world.verify(listing, "WINNING")
    assert winners(world) == []
    attest(world, ticket)
    attest(world, permute_units(ticket, 1))
    assert winners(world) == ["first"]
    assert winners(world, origin="any") == ["brought", "bytes", "first", "permuted"]
    assert winners(world, origin="brought-in") == ["brought"]
    assert winners(world, origin="attested") == ["bytes", "first", "permuted"]


def test_a_private_first_listing_hides_no_public_winner(world: World) -> None:
    secret = world.publish("eve", "secret", make_ticket(), "private")
    shown = world.publish("cleo", "shown", make_ticket())
    attest(world, make_ticket())
    for listing in (secret, shown):
        world.verify(listing, "WINNING")
    assert winners(world) == ["shown"]


def test_tickets_of_find_jobs_of_before_are_attested_and_the_others_brought_in(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with open_world(database, storage) as world:
        cleo = world.accounts["cleo"]
        for name, job_id, seed in (("found", "a-job", 1), ("pushed", None, 2), ("same", None, 1)):
            data = make_ticket(seed=seed).to_bytes()
            publish_ticket(world.session, storage, data, Publication(cleo, name, job_id=job_id))
    config = alembic_config(settings)
    command.downgrade(config, "0005")
    command.upgrade(config, "head")
    with database.read() as session:
        rows = session.execute(text("SELECT name, origin FROM ticket")).all()
    assert dict(map(tuple, rows)) == {"found": "attested", "pushed": "brought-in", "same": "attested"}
