"""Heartbeats: every worker beats a row by the database's clock, and the silent ones are taken over."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from app.db import insert_if_absent
from app.jobs.models import Worker

FORGET_AFTER = (
    10  # expiries: long enough for every survivor to have seen it, and for a late job of the dead one
)


def database_now(session: Session) -> datetime:
    """This instant by the database's clock, the only one that all workers share."""
    if session.get_bind().dialect.name == "sqlite":
        now = session.execute(text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")).scalar_one()
        return datetime.fromisoformat(now).replace(tzinfo=UTC)
    at: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return at.astimezone(UTC)


def beat(session: Session, worker_id: str, queues: Collection[str]) -> None:
    """Say that this worker is alive; make its row if it has none (any more)."""
    at = database_now(session)
    beaten = update(Worker).where(Worker.id == worker_id).values(beat_at=at, leaving=False)
    if session.execute(beaten.returning(Worker.id)).scalar_one_or_none() is None:
        row = {"started_at": at, "beat_at": at, "leaving": False, "queues": ",".join(queues)}
        insert_if_absent(session, Worker, id=worker_id, **row)


def leave(session: Session, worker_id: str) -> None:
    """Say that this worker goes now and that its jobs are free."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(leaving=True))


def find_left(session: Session, worker_id: str) -> list[str]:
    """The other workers that said they go: their jobs are free, whatever the clock says."""
    return list(session.scalars(select(Worker.id).where(Worker.leaving, Worker.id != worker_id)))


def find_silent(session: Session, worker_id: str, expiry_seconds: float) -> list[str]:
    """The other workers that have been silent for longer than `expiry_seconds`."""
    latest = database_now(session) - timedelta(seconds=expiry_seconds)
    return list(session.scalars(select(Worker.id).where(Worker.beat_at < latest, Worker.id != worker_id)))


def forget(session: Session, expiry_seconds: float) -> None:
    """Remove the rows of workers that were taken over long ago."""
    latest = database_now(session) - timedelta(seconds=FORGET_AFTER * expiry_seconds)
    session.execute(delete(Worker).where(Worker.beat_at < latest))
