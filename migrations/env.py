"""Alembic's environment: the models of every feature, on the database of the settings."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

import app.accounts.models
import app.accounts.oidc.service
import app.accounts.organisations.roles
import app.architectures.service
import app.changes.service
import app.devices.service
import app.evaluations.models
import app.jobs.models
import app.tasks.models
import app.tickets.files.counting
import app.tickets.models
import app.transfers.models
import app.webhooks.service  # noqa: F401
from app.db import Base, UtcDateTime, make_engine
from app.settings import Settings
from app.tickets.search.counts import install_triggers, recount, remove_triggers


def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    """Leave the job engine's own tables, which lie in the same database, alone."""
    return kind != "table" or name in Base.metadata.tables


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write our own type as the one that it is in the database: a migration must not change with the code."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run(connection: Connection) -> None:
    """Migrate over an open connection, everything in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=is_ours,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")  # else no migration changes a table
        before = context.get_context().get_current_heads()
        remove_triggers(connection)
        context.run_migrations()
        install_triggers(connection)
        if before != context.get_context().get_current_heads():
            recount(connection)


settings = context.config.attributes.get("settings") or Settings()
settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
engine = make_engine(settings.database_url)
with engine.connect() as connection:
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        # SQLite changes a table by making it anew, and dropping the old one would delete what refers to it.
        # On the driver's own connection, because inside a transaction the pragma does nothing.
        connection.connection.execute("PRAGMA foreign_keys = OFF")
    run(connection)
    if is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise RuntimeError("a migration left rows that refer to nothing; it was rolled back")
    connection.commit()
engine.dispose()
