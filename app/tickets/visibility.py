"""Public or private: exchanged both ways by the owner, until something depends on a public listing.

An attestation does, an evaluation or a transfer that somebody else asked for, their job that is open, and a
yank, which promises that pinned downloads go on. Claims of others ("pruned from this one") and copies do not:
anybody could make them, and so keep a listing public against its owner's will.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import JSON, ColumnElement, column, exists, select, table
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.accounts.organisations.roles import acts_for
from app.architectures.service import rename_architecture
from app.changes.service import note_change
from app.evaluations.models import ATTESTING, Attestation, Evaluation
from app.tickets.models import Listing
from app.tickets.service import lock_copies, touch_copies
from nirvana.errors import Conflict, Problem

# `app.jobs` and `app.transfers` know tickets, not the other way round, so their tables are named here.
JOB = table("job", *(column(name) for name in ("id", "account_id", "state")), column("spec", JSON))
TRANSFER = table("transfer", *(column(name) for name in ("ticket_digest", "job_id")))
OPEN_STATES = ("queued", "running")


def change_visibility(session: Session, row: Listing, visibility: str) -> None:
    """Make a listing public or private.

    Raises:
        Conflict: it is public for good, with what depends on it.
    """
    if visibility == row.visibility:
        return
    if visibility == "private":
        problems = [Problem("/visibility", "depended-on", reason) for reason in find_dependants(session, row)]
        if problems:
            name = f"{row.owner.name}/{row.name}"
            raise Conflict(f"{name} stays public: {problems[0].detail}.", errors=problems)
    lock_copies(session, row.digest, row.fingerprint)
    row.visibility = visibility
    note_change(session, "hidden" if visibility == "private" else "shown", [row.id])
    touch_copies(session, row)
    rename_architecture(session, row.architecture_id)


def find_dependants(session: Session, row: Listing) -> Iterator[str]:
    """Yield what keeps a listing public."""
    if row.yanked_at is not None:
        yield "it is yanked, and whoever pinned it goes on downloading it"
    attested = (Attestation.ticket_digest == row.digest, Attestation.task == row.task)
    if session.scalar(select(exists().where(*attested, Attestation.outcome.in_(ATTESTING)))):
        yield "the registry has attested where its mask came from"
    of_exam = exists().where(Evaluation.exam_key == row.exam_key, _is_others(Evaluation.job_id, row))
    if session.scalar(select(of_exam)):
        yield "somebody else had it verified"
    tried = exists().where(TRANSFER.c.ticket_digest == row.digest, _is_others(TRANSFER.c.job_id, row))
    if session.scalar(select(tried)):
        yield "somebody else tried it on another task"
    others = (JOB.c.state.in_(OPEN_STATES), ~acts_for(JOB.c.account_id, row.owner_id))
    if session.scalar(select(exists().where(*others, JOB.c.spec["digest"].as_string() == row.digest))):
        yield "somebody else's job on it is queued or running"


def _is_others(
    job_id: ColumnElement[Any] | InstrumentedAttribute[str | None], row: Listing
) -> ColumnElement[bool]:
    """Return the condition that a job was neither the owner's nor a member's; one that was purged may have
    been anybody's."""
    own = exists().where(JOB.c.id == job_id, acts_for(JOB.c.account_id, row.owner_id))
    return job_id.is_not(None) & ~own
