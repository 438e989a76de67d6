"""Migrations: up, down and up again on both databases, and nothing that the models do not say."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

from app.accounts.service import create_account
from app.db import Base, Database, utc_now
from app.jobs.events import append_events, read_events
from app.jobs.models import Job
from app.migrate import alembic_config, migrate_database
from app.settings import Settings


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
    for column in ("kind", "state"):
        with pytest.raises(IntegrityError), database.write() as session:
            session.execute(text(f"UPDATE job SET {column} = 'bake'"))


def test_the_migrated_schema_is_the_one_of_the_models(settings: Settings) -> None:
    command.check(alembic_config(settings))  # raises where they differ


def test_migrating_twice_changes_nothing(settings: Settings) -> None:
    migrate_database(settings)
    command.check(alembic_config(settings))
