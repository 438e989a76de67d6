"""Nobody moves a verdict: each attack that once did, and random sequences of what accounts may do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.service import create_account
from app.db import Database, utc_now
from app.evaluations.models import Evaluation, Exam, Pool
from app.evaluations.service import (
    POOL_LIFE,
    get_evaluation,
    grow_pool,
    list_evaluations,
    open_exam,
    record_evaluation,
)
from app.storage import Storage
from app.tickets.models import Listing
from app.tickets.publishing import Publication, publish_ticket
from app.tickets.service import get_ticket, unyank_ticket, yank_ticket
from nirvana.errors import NotFound
from nirvana.format.ticket import Ticket
from nirvana.verification.protocol import PROTOCOL, SEEDS_APART
from tests.factories import RECIPE, make_ticket
from tests.registry import VERDICT, count_now

POOLS = {"dense": "1" * 64, "reference": "0" * 64}
BRIEF = dataclasses.replace(RECIPE, steps=10).to_dict()
LONG = dataclasses.replace(RECIPE, steps=1200).to_dict()


@dataclasses.dataclass
class World:
    """A registry of three accounts, below its REST interface."""

    session: Session
    storage: Storage
    accounts: dict[str, Account]

    def publish(self, by: str, name: str, ticket: Ticket, visibility: str = "public") -> Listing:
        publication = Publication(self.accounts[by], name, visibility)
        return publish_ticket(self.session, self.storage, ticket.to_bytes(), publication)[0]

    def verify(self, listing: Listing, verdict: str, replicates: int = 5) -> Evaluation:
        """Record what a job records: its replicates beside those of the exam's earlier verifications."""
        opened = open_exam(self.session, listing.exam_key, POOLS)
        before = opened["progress"]["evaluation"]["replicates"] if opened["progress"] else 0
        n = before + replicates
        arms = {"ticket": [0.9] * n, "dense": [0.92] * n}
        fields = {"verdict": verdict, "replicates": n, "protocol": PROTOCOL, "task": listing.task}
        body = VERDICT | fields | {"arms": arms, "recipe": listing.manifest["recipe"]}
        return record_evaluation(
            self.session, listing.exam_key, listing.digest, body, None, {"seed": opened["seed"]}
        )

    def headline(self, listing: Listing) -> tuple[str | None, int | None, float | None]:
        self.session.flush()
        self.session.refresh(listing, ["verdict", "replicates", "accuracy_gap"])
        return listing.verdict, listing.replicates, listing.accuracy_gap


@pytest.fixture
def world(database: Database, storage: Storage) -> Iterator[World]:
    with open_world(database, storage) as made:
        yield made


@contextmanager
def open_world(database: Database, storage: Storage) -> Iterator[World]:
    with database.write() as session:
        count_now(session)
        accounts = {name: create_account(session, name) for name in ("cleo", "dan", "eve")}
        yield World(session, storage, accounts)


def stored(ticket: Ticket, laws: dict[str, str] | None = None) -> Ticket:
    """Return the same masks and values, stored whole, with other laws perhaps."""
    return Ticket.create(
        ticket.architecture,
        ticket.masks,
        laws=laws or ticket.start.laws,
        stored=ticket.dense_initial_values(),
        task=ticket.task,
        recipe=ticket.recipe,
    )


def test_a_starved_recipe_of_the_same_ticket_has_a_verdict_of_its_own(world: World) -> None:
    honest = world.publish("cleo", "honest", make_ticket())
    world.verify(honest, "NOT_MATCHING")
    starved = world.publish("cleo", "starved", make_ticket(recipe=BRIEF))
    assert starved.digest == honest.digest
    assert world.headline(starved) == (None, None, None), "no verdict is inherited"
    world.verify(starved, "WINNING", 20)
    assert world.headline(honest)[:2] == ("NOT_MATCHING", 5)
    assert world.headline(starved)[:2] == ("WINNING", 20)


def test_nobody_can_overwrite_a_verdict_by_more_replicates_of_another_recipe(world: World) -> None:
    owners = world.publish("cleo", "winner", make_ticket())
    world.verify(owners, "WINNING", 20)
    attackers = world.publish("eve", "winner", make_ticket(recipe=LONG))
    world.verify(attackers, "LAYER_RATIO_ONLY", 21)
    assert world.headline(owners)[:2] == ("WINNING", 20)


def test_a_false_law_makes_its_own_listing_invalid_and_no_other(world: World) -> None:
    ticket = make_ticket()
    honest = world.publish("cleo", "honest", stored(ticket))
    laws = dict.fromkeys(ticket.start.laws, "zeros")
    false = world.publish("eve", "false", stored(ticket, laws))
    seeded = world.publish("dan", "seeded", ticket)
    assert honest.digest == false.digest == seeded.digest
    assert len({honest.exam_key, false.exam_key, seeded.exam_key}) == 3
    world.verify(false, "INVALID", 0)
    world.verify(honest, "MATCHING")
    assert world.headline(false)[0] == "INVALID"
    assert world.headline(honest)[0] == "MATCHING"
    assert world.headline(seeded)[0] is None


def test_other_values_of_pruned_weights_are_another_exam(world: World) -> None:
    """The controls start from them: zeros there would fail the shuffle control for the same digest."""
    ticket = stored(make_ticket())
    hollow = {
        name: np.where(ticket.mask(name), value, np.float32(0)) if name in ticket.masks else value
        for name, value in ticket.initial_values().items()
    }
    other = Ticket.create(
        ticket.architecture,
        ticket.masks,
        stored=hollow,
        task=ticket.task,
        recipe=ticket.recipe,
        laws=ticket.start.laws,
    )
    honest, hollowed = world.publish("cleo", "honest", ticket), world.publish("eve", "hollow", other)
    assert honest.digest == hollowed.digest
    world.verify(hollowed, "WINNING", 20)
    assert world.headline(honest)[0] is None


def test_the_very_same_ticket_by_the_same_recipe_shares_its_exam(world: World) -> None:
    one = world.publish("cleo", "one", make_ticket())
    world.verify(one, "WINNING")
    other = world.publish("dan", "two", make_ticket(description="mine"))
    assert world.headline(other) == world.headline(one)
    world.verify(other, "WINNING")
    assert world.headline(one)[1] == world.headline(other)[1] == 10


def test_the_seed_of_an_exam_is_drawn_once_and_never_by_the_ticket(world: World) -> None:
    one = world.publish("cleo", "one", make_ticket())
    seeds = {open_exam(world.session, one.exam_key, POOLS)["seed"] for _ in range(3)}
    other = open_exam(world.session, world.publish("cleo", "two", make_ticket(seed=18)).exam_key, POOLS)[
        "seed"
    ]
    assert len(seeds) == 1
    assert other not in seeds
    assert all(seed % SEEDS_APART == 0 for seed in (*seeds, other))
    assert len(world.session.scalars(select(Exam)).all()) == 2


def test_a_pool_is_shared_by_exams_and_grows_and_never_shrinks(world: World) -> None:
    one, other = (world.publish("cleo", f"t{seed}", make_ticket(seed=seed)).exam_key for seed in (1, 2))
    first = open_exam(world.session, one, POOLS)
    (dense, none), (reference, nothing) = first["pools"]["dense"], first["pools"]["reference"]
    assert (none, nothing) == (0, 0)
    for runs in (8, 4):
        grow_pool(world.session, POOLS["reference"], reference, runs)
    later = open_exam(world.session, other, POOLS)
    assert later["pools"] == {"dense": (dense, 0), "reference": (reference, 8)}
    assert len({first["seed"], later["seed"], dense, reference}) == 4


def test_a_recipe_that_is_the_reference_has_one_pool(world: World) -> None:
    listing = world.publish("cleo", "one", make_ticket())
    same = open_exam(world.session, listing.exam_key, dict.fromkeys(POOLS, "2" * 64))
    assert same["pools"]["dense"] == same["pools"]["reference"]


def test_a_pool_that_is_too_old_begins_anew_with_another_seed(world: World) -> None:
    listing = world.publish("cleo", "one", make_ticket())
    seed, _ = open_exam(world.session, listing.exam_key, POOLS)["pools"]["dense"]
    grow_pool(world.session, POOLS["dense"], seed, 20)
    world.session.execute(update(Pool).values(created_at=utc_now() - POOL_LIFE + timedelta(hours=1)))
    assert open_exam(world.session, listing.exam_key, POOLS)["pools"]["dense"] == (seed, 20)
    world.session.execute(update(Pool).values(created_at=utc_now() - POOL_LIFE - timedelta(hours=1)))
    renewed, runs = open_exam(world.session, listing.exam_key, POOLS)["pools"]["dense"]
    assert renewed != seed
    assert runs == 0
    grow_pool(world.session, POOLS["dense"], seed, 20)  # a verification that had begun with the old one
    assert open_exam(world.session, listing.exam_key, POOLS)["pools"]["dense"] == (renewed, 0)


def test_the_headline_s_gap_is_to_the_better_baseline(world: World) -> None:
    """A starved dense arm once put an edge-popup ticket first by a gap of 86 pp."""
    listing = world.publish("eve", "starved", make_ticket(recipe=BRIEF))
    arms = {"dense": [0.1, 0.12], "reference": [0.97, 0.98, 0.975], "ticket": [0.96, 0.97]}
    body = VERDICT | {"protocol": PROTOCOL, "replicates": 2, "arms": arms}
    record_evaluation(world.session, listing.exam_key, listing.digest, body)
    assert world.headline(listing)[2] == pytest.approx(-0.01)


def test_the_evaluation_of_a_private_listing_is_seen_by_its_owner_alone(world: World) -> None:
    public = world.publish("cleo", "public", make_ticket())
    private = world.publish("eve", "private", make_ticket(recipe=LONG), "private")
    evaluation = world.verify(private, "WINNING")
    cleo, eve = world.accounts["cleo"], world.accounts["eve"]
    for reader in (None, cleo):
        assert list_evaluations(world.session, public.digest, reader, limit=9).rows == []
        with pytest.raises(NotFound):
            get_evaluation(world.session, public.digest, reader, evaluation.id)
    assert list_evaluations(world.session, public.digest, eve, limit=9).rows == [evaluation]


CLOSED = ("NOT_MATCHING", "TRIVIAL", "LAYER_RATIO_ONLY", "MATCHING", "WINNING")


@pytest.mark.parametrize("seed", range(5))
def test_no_sequence_of_what_others_do_changes_a_headline(
    database: Database, storage: Storage, tmp_path: Path, seed: int
) -> None:
    """Each exam has one true verdict here; whatever three accounts publish, verify and yank, a listing shows
    its own exam's, of all replicates that were ever asked for, and none before its exam was verified."""
    generator = np.random.default_rng(seed)
    kinds = [
        make_ticket(),
        make_ticket(recipe=BRIEF),
        make_ticket(recipe=LONG),
        make_ticket(task="mnist"),
        stored(make_ticket()),
        stored(make_ticket(), dict.fromkeys(make_ticket().start.laws, "zeros")),
    ]
    truth, asked = dict[str, str](), dict[str, int]()
    with open_world(database, storage) as world:
        listings = list[Listing]()
        for step in range(60):
            by = str(generator.choice(["cleo", "dan", "eve"]))
            action = generator.integers(4) if listings else 0
            if action == 0:
                kind = int(generator.integers(len(kinds)))
                listing = world.publish(by, f"t{step}", kinds[kind])
                truth.setdefault(listing.exam_key, CLOSED[kind % len(CLOSED)])
                listings.append(listing)
            else:
                listing = listings[int(generator.integers(len(listings)))]
                if action == 1:
                    replicates = int(generator.integers(2, 21))
                    world.verify(listing, truth[listing.exam_key], replicates)
                    asked[listing.exam_key] = asked.get(listing.exam_key, 0) + replicates
                elif action == 2:
                    yank_ticket(world.session, listing, "other", None)
                else:
                    unyank_ticket(world.session, listing)
            for one in listings:
                n = asked.get(one.exam_key)
                assert world.headline(one)[:2] == (truth[one.exam_key] if n else None, n)
        assert len({one.digest for one in listings}) == 1
        assert len(asked) > 1
        assert get_ticket(world.session, listings[0].digest).digest == listings[0].digest
