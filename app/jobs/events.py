"""A job's events: append only, numbered without gaps, read again from any number on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.db import utc_now
from app.jobs.models import Job, JobEvent

Event = tuple[str, dict[str, Any]]


def append_events(session: Session, job_id: str, events: Iterable[Event]) -> None:
    """Append events to a job.

    The numbers come from the job's own row, whose lock is held until the commit: a reader who has seen
    number n has seen every number below it, so that a stream can be resumed at n.
    """
    rows = [{"kind": kind, "body": body} for kind, body in events]
    if not rows:
        return
    counted = update(Job).where(Job.id == job_id).values(last_event=Job.last_event + len(rows))
    last = session.execute(counted.returning(Job.last_event)).scalar_one()
    at = utc_now()
    first = last - len(rows) + 1
    session.execute(
        insert(JobEvent),
        [row | {"job_id": job_id, "serial": first + n, "created_at": at} for n, row in enumerate(rows)],
    )


def read_events(session: Session, job_id: str, after: int, limit: int = 500) -> list[JobEvent]:
    """The job's events with a serial above `after`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.serial > after)
    return list(session.scalars(query.order_by(JobEvent.serial).limit(limit)))
