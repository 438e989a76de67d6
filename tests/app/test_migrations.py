"""Migrations: up, down and up again on both databases, and nothing that the models do not say."""

from __future__ import annotations

from alembic import command
from sqlalchemy import inspect

from app.db import Base, Database
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


def test_the_migrated_schema_is_the_one_of_the_models(settings: Settings) -> None:
    command.check(alembic_config(settings))  # raises where they differ


def test_migrating_twice_changes_nothing(settings: Settings) -> None:
    migrate_database(settings)
    command.check(alembic_config(settings))
