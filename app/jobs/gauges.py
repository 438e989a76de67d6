"""What metrics say about jobs and workers."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import utc_now
from app.jobs.models import STATES, Job, Worker
from app.metrics import Gauge


def read_gauges(session: Session) -> Iterator[Gauge]:
    """Jobs by state, the age of the oldest queued one, and how long ago each worker was alive."""
    counts = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
    yield Gauge("nirvana_jobs", "Jobs", "state", {state: counts.get(state, 0) for state in STATES})
    now = utc_now()
    oldest = session.scalar(select(func.min(Job.created_at)).where(Job.state == "queued"))
    age = (now - oldest).total_seconds() if oldest else 0.0
    yield Gauge("nirvana_queue_age_seconds", "Age of the oldest queued job", values={"": age})
    beats = session.execute(select(Worker.id, Worker.beat_at).where(Worker.leaving.is_(False)))
    ages = {worker: (now - beat).total_seconds() for worker, beat in beats}
    yield Gauge("nirvana_worker_heartbeat_age_seconds", "Time since a worker's last beat", "worker", ages)
