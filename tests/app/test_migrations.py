"""Migrations: up, down and up again on both databases, and nothing that the models do not say."""

from __future__ import annotations

import dataclasses
import json

import pytest
from alembic import command
from sqlalchemy import inspect, select, text, update
from sqlalchemy.exc import IntegrityError

from app.__main__ import alembic_config, migrate_database
from app.accounts.models import Account
from app.accounts.service import create_account
from app.db import Base, Database, utc_now
from app.evaluations.models import Evaluation
from app.evaluations.service import record_evaluation
from app.jobs.models import Job, JobCount
from app.jobs.service import append_events, read_events
from app.settings import Settings
from app.storage import Storage, make_storage
from app.tickets.models import Listing
from app.tickets.publishing import Publication, publish_ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.verification.protocol import PROTOCOL
from tests.factories import RECIPE, make_ticket
from tests.registry import VERDICT


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) & set(Base.metadata.tables)


def test_migrations_go_down_and_up_again(settings: Settings, database: Database) -> None:
    config = alembic_config(settings)
    assert tables(database) == set(Base.metadata.tables)
    command.downgrade(config, "base")
    assert tables(database) == set()
    command.upgrade(config, "head")
    assert tables(database) == set(Base.metadata.tables)


def job(account_id: int, kind: str) -> Job:
    fields = {"spec": {}, "budget": {"seconds": 1}, "queue": "cpu", "priority": 1, "request_digest": "x"}
    fields |= {"person": f"account:{account_id}"}
    return Job(id=f"a-{kind}", account_id=account_id, kind=kind, created_at=utc_now(), **fields)


def test_a_change_of_the_jobs_table_keeps_its_rows_their_events_and_every_rule(
    settings: Settings, database: Database
) -> None:
    config = alembic_config(settings)
    with database.write() as session:
        account = create_account(session, "ada")
        for kind in ("prune", "transfer"):
            session.add(job(account.id, kind))
            session.flush()
            append_events(session, f"a-{kind}", [("log", {"n": 1})])
    before = inspect(database.engine)
    rules = {name: (before.get_indexes(name), before.get_foreign_keys(name)) for name in ("job", "job_event")}
    command.downgrade(config, "0001")
    command.upgrade(config, "head")
    after = inspect(database.engine)
    assert rules == {name: (after.get_indexes(name), after.get_foreign_keys(name)) for name in rules}
    with database.write() as session:
        assert list(session.scalars(select(Job.id))) == ["a-prune"]
        assert [event.body for event in read_events(session, "a-prune", 0)] == [{"n": 1}]
        assert session.scalar(text("SELECT count(*) FROM job_event")) == 1
    for column in ("state",):  # kinds are modules: `app.jobs.kinds.find_kind` refuses others
        with pytest.raises(IntegrityError), database.write() as session:
            session.execute(text(f"UPDATE job SET {column} = 'bake'"))


def test_verdicts_of_protocol_2_go_to_the_listings_of_their_recipe_and_to_no_other(
    settings: Settings, database: Database
) -> None:
    brief = dataclasses.replace(RECIPE, steps=10).to_dict()
    storage = make_storage(settings)
    with database.write() as session:
        account, keys = create_account(session, "ada"), dict[str, str]()
        for name, recipe in {
            "honest": RECIPE.to_dict(),
            "starved": brief,
            "fresh": brief | {"l1": 0.1},
        }.items():
            data = make_ticket(recipe=recipe).to_bytes()
            row, _ = publish_ticket(session, storage, data, Publication(account, name))
            keys[name] = row.exam_key
        for recipe, verdict, n in (
            (RECIPE.to_dict(), "NOT_MATCHING", 5),
            (brief, "WINNING", 20),
            ({}, "TRIVIAL", 25),
        ):
            arms = {"ticket": [0.9] * n, "dense": [0.92] * n}
            body = VERDICT | {"verdict": verdict, "replicates": n, "arms": arms, "recipe": recipe}
            record_evaluation(session, "0" * 64, row.digest, body | {"protocol": "nirvana-verify/2"})
        borrowed = {"verdict": "TRIVIAL", "accuracy": 0.9, "replicates": 25, "sort_accuracy": 0.9}
        session.execute(update(Listing).values(borrowed))
    config = alembic_config(settings)
    command.downgrade(config, "0003")
    command.upgrade(config, "head")
    with database.read() as session:
        rows = {row.name: row for row in session.scalars(select(Listing))}
        named = {row.verdict: row.exam_key for row in session.scalars(select(Evaluation))}
    assert {name: row.exam_key for name, row in rows.items()} == keys
    assert named == {"NOT_MATCHING": keys["honest"], "WINNING": keys["starved"], "TRIVIAL": None}
    shown = {name: (row.verdict, row.replicates, row.sort_accuracy) for name, row in rows.items()}
    assert shown == {
        "honest": ("NOT_MATCHING", 5, pytest.approx(0.9)),
        "starved": ("WINNING", 20, pytest.approx(0.9)),
        "fresh": (None, None, -2.0),
    }


def test_a_listing_s_protocol_is_filled_in_from_its_headline(
    settings: Settings, database: Database, storage: Storage
) -> None:
    evaluations = {
        "old": [("nirvana-verify/1", 20), ("nirvana-verify/2", 25)],
        "new": [("nirvana-verify/2", 25), (PROTOCOL, 5)],
        "none": [],
    }
    with database.write() as session:
        account = create_account(session, "ada")
        for seed, (name, measured) in enumerate(evaluations.items()):
            data = make_ticket(seed=seed).to_bytes()
            row, _ = publish_ticket(session, storage, data, Publication(account, name))
            for protocol, n in measured:
                arms = {"ticket": [0.9] * n, "dense": [0.92] * n}
                body = VERDICT | {"protocol": protocol, "replicates": n, "arms": arms}
                record_evaluation(session, row.exam_key, row.digest, body)
    expected = {"old": "nirvana-verify/2", "new": PROTOCOL, "none": None}
    for _ in range(2):
        with database.read() as session:
            assert {row.name: row.protocol for row in session.scalars(select(Listing))} == expected
        command.downgrade(alembic_config(settings), "0007")
        command.upgrade(alembic_config(settings), "head")


COUNTS = ("density", "kept", "total", "parameters", "layers")


def counts(database: Database) -> dict[str, dict[str, object]]:
    """Each listing's counts, as the database has them."""
    with database.read() as session:
        rows = session.execute(text(f"SELECT name, {', '.join(COUNTS)} FROM ticket")).mappings()
        return {row["name"]: {name: as_json(row[name]) for name in COUNTS} for row in rows}


def as_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


def test_density_of_old_listings_becomes_the_whole_networks_and_comes_back(
    settings: Settings, database: Database, storage: Storage
) -> None:
    config = alembic_config(settings)
    whole = make_ticket()
    partial = make_ticket(masks={"fc2.weight": whole.masks["fc2.weight"]}, prunable=["fc2.weight"])
    tokens = make_ticket(architecture=zoo.build("transformer-1-20", (8,), 10))
    signals = make_ticket(architecture=zoo.build("conv1d-3", (1, 64), 10))
    tickets = {"whole": whole, "partial": partial, "tokens": tokens, "signals": signals}
    with database.write() as session:
        account = create_account(session, "ada")
        for name, ticket in tickets.items():
            publish_ticket(session, storage, ticket.to_bytes(), Publication(account, name))
    new = counts(database)
    command.downgrade(config, "0003")
    old = counts(database)
    for name, ticket in tickets.items():
        assert (old[name]["kept"], old[name]["total"]) == (ticket.prunable_kept, ticket.prunable_total)
    assert [layer["name"] for layer in old["partial"]["layers"]] == ["fc2.weight"]  # type: ignore[attr-defined]
    assert old["whole"] == new["whole"]
    command.upgrade(config, "head")
    assert counts(database) == new
    with database.read() as session:
        rows = session.execute(text("SELECT name, kept_parameters, fingerprint, version FROM ticket"))
        shown = {name: tuple(values) for name, *values in rows}
    for name, ticket in tickets.items():
        assert shown[name] == (ticket.kept_parameters, None, 3)  # the version: what a page shows has changed


def test_the_migrated_schema_is_the_one_of_the_models(settings: Settings) -> None:
    command.check(alembic_config(settings))  # raises where they differ


def test_migrating_twice_changes_nothing(settings: Settings) -> None:
    migrate_database(settings)
    command.check(alembic_config(settings))


def test_old_networks_get_their_owners_names_and_old_accounts_their_skeletons(
    settings: Settings, database: Database, storage: Storage
) -> None:
    graph = Architecture.make("resnet-50", (1, 8, 8), zoo.build("mlp-7", (1, 8, 8), 10).nodes)
    with database.write() as session:
        account = create_account(session, "paul")
        for name, ticket in {"fake": make_ticket(architecture=graph), "real": make_ticket()}.items():
            publish_ticket(session, storage, ticket.to_bytes(), Publication(account, name))
    config = alembic_config(settings)
    command.downgrade(config, "0009")
    with database.write() as session:
        for name in ("pau1", "eve"):  # as it was allowed before
            session.execute(
                text(
                    f"INSERT INTO account (name, created_at) SELECT '{name}', created_at FROM account LIMIT 1"
                )
            )
        session.execute(
            text("UPDATE ticket SET architecture_name = 'resnet-50', family = 'resnet' WHERE name = 'fake'")
        )
        session.execute(text("UPDATE architecture SET name = 'resnet-50' WHERE name = 'paul/resnet-50'"))
    command.upgrade(config, "head")
    with database.read() as session:
        tickets = session.execute(text("SELECT name, architecture_name, family FROM ticket")).all()
        graphs = session.execute(text("SELECT name, family FROM architecture")).all()
        accounts = session.execute(text("SELECT name, skeleton FROM account")).all()
    assert {tuple(row) for row in tickets} == {
        ("fake", "paul/resnet-50", "paul/resnet"),
        ("real", "mlp-16", "mlp"),
    }
    assert {tuple(row) for row in graphs} == {("paul/resnet-50", "paul/resnet"), ("mlp-16", "mlp")}
    assert {tuple(row) for row in accounts} == {("paul", "paul"), ("pau1", None), ("eve", "eve")}


def test_what_is_kept_of_queues_and_accounts_is_counted_from_the_rows_that_are_there(
    settings: Settings, database: Database, storage: Storage
) -> None:
    data = [make_ticket(seed=seed).to_bytes() for seed in range(2)]
    with database.write() as session:
        account, other = create_account(session, "ada"), create_account(session, "bob")
        for number, file in enumerate(data):
            publish_ticket(session, storage, file, Publication(account, f"t{number}"))
        session.add_all([job(account.id, "prune"), job(other.id, "verify")])
    config = alembic_config(settings)
    command.downgrade(config, "0009")
    command.upgrade(config, "head")
    with database.read() as session:
        rows = dict(session.execute(select(Account.name, Account.stored_bytes)).all())
        people = set(session.scalars(select(Job.person)))
        counts = dict(session.execute(select(JobCount.state, JobCount.number)).all())
    assert rows == {"ada": sum(map(len, data)), "bob": 0}
    assert people == {f"account:{account.id}", f"account:{other.id}"}
    assert counts == {"queued": 2}
