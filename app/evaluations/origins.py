"""Where a ticket's mask came from, as far as the registry knows.

*Attested*: its own worker found the ticket, or ran its search again and got it. *Sealed*: the ticket's task
has test rows that never leave the registry, and was made by another than who publishes the ticket. Everything
else is *brought in*: its author may have searched it on the test labels. A file's provenance is a claim, and
only a worker writes an attestation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import JSON, column, select, table, update
from sqlalchemy.orm import Session

from app.accounts.organisations.roles import acts_for
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


def find_origins(
    session: Session, tickets: Collection[tuple[str, str, int]]
) -> dict[tuple[str, str, int], str]:
    """Return the origins of tickets: (digest, task, owner's id) -> origin."""
    attested = _find_attested(session, {digest for digest, _, _ in tickets})
    unattested = {one[1:] for one in tickets if one[:2] not in attested}
    sealed = {one for one in unattested if _is_sealed_for(session, *one)}
    return {
        one: "attested" if one[:2] in attested else "sealed" if one[1:] in sealed else "brought-in"
        for one in tickets
    }


def _find_attested(session: Session, digests: Collection[str]) -> set[tuple[str, str]]:
    """Return (digest, task) of those tickets that are attested on a task."""
    query = select(Attestation.ticket_digest, Attestation.task)
    of_tickets = (Attestation.ticket_digest.in_(digests), Attestation.outcome.in_(ATTESTING))
    return {(digest, task) for digest, task in session.execute(query.where(*of_tickets))}


def _is_sealed_for(session: Session, task: str, owner_id: int) -> bool:
    """Tell whether an owner cannot have seen the rows that decide: whoever made a task has seen all, and so
    has an organisation with that member."""
    if "/" not in task:
        try:
            return tasks.get(task).is_sealed
        except NotFound:
            return False
    query = select(TASK.c.body, acts_for(TASK.c.owner_id, owner_id)).where(TASK.c.name == task)
    row = session.execute(query).one_or_none()
    return row is not None and bool(row[0]["seal"]) and not row[1]


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
    if (found.digest, found.task) not in _find_attested(session, {found.digest}):
        return
    stale = (LISTING.c.digest == found.digest, LISTING.c.task == found.task, LISTING.c.origin != "attested")
    lock_listings(session, *stale)
    note_change(session, "origin", session.scalars(select(LISTING.c.id).where(*stale)).all())
    session.execute(update(LISTING).where(*stale).values(origin="attested", version=LISTING.c.version + 1))


def list_attestations(session: Session, digest: str, task: str, limit: int = 100) -> list[Attestation]:
    """Return what searches for a ticket on a task gave, newest first."""
    query = select(Attestation).where(Attestation.ticket_digest == digest, Attestation.task == task)
    return list(session.scalars(query.order_by(Attestation.id.desc()).limit(limit)))
