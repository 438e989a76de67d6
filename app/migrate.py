"""Bringing a database to the newest schema, from the service or the command line."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from app.settings import Settings

ROOT = Path(__file__).parent.parent


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration for the database of the settings."""
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["settings"] = settings
    return config


def migrate_database(settings: Settings) -> None:
    """Upgrade the service's tables, then the job engine's own; safe to repeat."""
    from app.jobs.engine import migrate_engine
    from app.main import make_database

    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    command.upgrade(alembic_config(settings), "head")
    database = make_database(settings)
    migrate_engine(database.engine)
    database.dispose()
