"""Where a ticket's mask came from, as far as the registry knows.

*Attested*: its own worker found the ticket, or ran its search again and got it. *Sealed*: the ticket's task
has test rows that never leave the registry. Everything else is *brought in*: its author may have searched it
on the test labels. A file's provenance is a claim, and only a worker writes an attestation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.changes.service import note_change
from app.db import Json, insert_if_absent, utc_now
from app.evaluations.models import ATTESTING, Attestation
from app.evaluations.service import LISTING, lock_listings
from nirvana import tasks
from nirvana.errors import NotFound


@dataclass(frozen=True)
class Outcome:
    """What came out of a ticket's search. Attributes: as of `Attestation`."""

    digest: str
    task: str
    outcome: str
    found_digest: str
    overlap: float
    environment: Json


def find_origin(session: Session, digest: str, task: str) -> str:
    """Return the origin of a ticket on a task."""
    return find_origins(session, [(digest, task)])[digest, task]


def find_origins(session: Session, tickets: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the origins of tickets: (digest, task) -> origin."""
    query = select(Attestation.ticket_digest, Attestation.task).where(
        Attestation.ticket_digest.in_([digest for digest, _ in tickets]), Attestation.outcome.in_(ATTESTING)
    )
    attested = {(digest, task) for digest, task in session.execute(query)}
    return {one: "attested" if one in attested else _origin_of_task(one[1]) for one in tickets}


def _origin_of_task(task: str) -> str:
    """Return the origin of a ticket that nothing attests."""
    try:
        return "sealed" if tasks.get(task).is_sealed else "brought-in"
    except NotFound:
        return "brought-in"


def record_attestation(session: Session, found: Outcome, job_id: str) -> None:
    """Keep what a job's search gave, once, and bring every listing of the ticket on the task up to date."""
    values: Json = {
        "task": found.task,
        "outcome": found.outcome,
        "found_digest": found.found_digest,
        "overlap": found.overlap,
        "environment": dict(found.environment),
        "created_at": utc_now(),
    }
    insert_if_absent(session, Attestation, ticket_digest=found.digest, job_id=job_id, **values)
    origin = find_origin(session, found.digest, found.task)
    stale = (LISTING.c.digest == found.digest, LISTING.c.task == found.task, LISTING.c.origin != origin)
    lock_listings(session, *stale)
    note_change(session, "origin", session.scalars(select(LISTING.c.id).where(*stale)).all())
    session.execute(update(LISTING).where(*stale).values(origin=origin, version=LISTING.c.version + 1))


def list_attestations(session: Session, digest: str, task: str, limit: int = 100) -> list[Attestation]:
    """Return what searches for a ticket on a task gave, newest first."""
    query = select(Attestation).where(Attestation.ticket_digest == digest, Attestation.task == task)
    return list(session.scalars(query.order_by(Attestation.id.desc()).limit(limit)))
