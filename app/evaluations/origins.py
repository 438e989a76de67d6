"""Where a ticket's mask came from, as far as the registry knows.

*Attested*: its own worker found the ticket, or ran its search again and got it. *Sealed*: the ticket's task
has test rows that never leave the registry, and was made by another than who publishes the ticket. Everything
else is *brought in*: its author may have searched it on the test labels. A file's provenance is a claim, and
only a worker writes an attestation.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import JSON, column, select, table, update
from sqlalchemy.orm import Session

from app.changes.service import note_change
from app.db import Json, insert_if_absent, utc_now
from app.evaluations.models import ATTESTING, Attestation
from app.evaluations.service import LISTING, lock_listings
from nirvana import tasks
from nirvana.errors import NotFound

# `app.tasks` knows evaluations, not the other way round, so its table is named here.
TASK = table("task", *(column(name) for name in ("name", "owner_id", "removed_at")), column("body", JSON))


@dataclass(frozen=True)
class Outcome:
    """What came out of a ticket's search. Attributes: as of `Attestation`."""

    digest: str
    task: str
    outcome: str
    found_digest: str
    overlap: float
    environment: Json


def find_origin(session: Session, digest: str, task: str, owner_id: int) -> str:
    """Return the origin of an account's ticket on a task."""
    if _is_attested(session, digest, task):
        return "attested"
    return "sealed" if _is_sealed_for(session, task, owner_id) else "brought-in"


def _is_attested(session: Session, digest: str, task: str) -> bool:
    of_ticket = (Attestation.ticket_digest == digest, Attestation.task == task)
    attests = select(Attestation.id).where(*of_ticket, Attestation.outcome.in_(ATTESTING)).limit(1)
    return session.scalar(attests) is not None


def _is_sealed_for(session: Session, task: str, owner_id: int) -> bool:
    """Tell whether an account cannot have seen the rows that decide: whoever made a task has seen all."""
    if "/" not in task:
        try:
            return tasks.get(task).is_sealed
        except NotFound:
            return False
    row = session.execute(select(TASK.c.owner_id, TASK.c.body).where(TASK.c.name == task)).one_or_none()
    return row is not None and row.owner_id != owner_id and bool(row.body["seal"])


def knows_task(session: Session, task: str) -> bool:
    """Tell whether tickets of a task can be verified here."""
    if "/" not in task:
        return task in tasks.built_in_names()
    there = select(TASK.c.name).where(TASK.c.name == task, TASK.c.removed_at.is_(None))
    return session.scalar(there) is not None


def record_attestation(session: Session, found: Outcome, job_id: str) -> None:
    """Keep what a job's search gave, once; where it attests, every listing of the ticket on the task is
    attested from then on."""
    values: Json = {
        "task": found.task,
        "outcome": found.outcome,
        "found_digest": found.found_digest,
        "overlap": found.overlap,
        "environment": dict(found.environment),
        "created_at": utc_now(),
    }
    insert_if_absent(session, Attestation, ticket_digest=found.digest, job_id=job_id, **values)
    if not _is_attested(session, found.digest, found.task):
        return
    stale = (LISTING.c.digest == found.digest, LISTING.c.task == found.task, LISTING.c.origin != "attested")
    lock_listings(session, *stale)
    note_change(session, "origin", session.scalars(select(LISTING.c.id).where(*stale)).all())
    session.execute(update(LISTING).where(*stale).values(origin="attested", version=LISTING.c.version + 1))


def list_attestations(session: Session, digest: str, task: str, limit: int = 100) -> list[Attestation]:
    """Return what searches for a ticket on a task gave, newest first."""
    query = select(Attestation).where(Attestation.ticket_digest == digest, Attestation.task == task)
    return list(session.scalars(query.order_by(Attestation.id.desc()).limit(limit)))
